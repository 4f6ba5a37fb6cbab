"""One evaluation after the network has spoken: from log p(x_0) to the next grid, for rows that differ in everything."""

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from service.diffusion.guidance import power
from service.diffusion.posterior import draw, posterior
from service.diffusion.purity import POWER, purity_of, sharpness
from service.diffusion.schedule import Schedule
from service.diffusion.selection import gumbel, highest, log_of, retire_scores, reveal_scores


class Told(NamedTuple):
    """What the rows are told in one evaluation: the contract's tensors, without the dimension k."""

    timestep: Tensor
    timestep_next: Tensor
    weights: Tensor
    reveal: Tensor
    remask: Tensor
    revise: Tensor
    reveal_score: Tensor
    retire_score: Tensor
    order: Tensor
    sharpen: Tensor
    temperature: Tensor
    truncation: Tensor
    form: Tensor
    uniforms: Tensor


class Needs(NamedTuple):
    """What at least one row needs; the rest is not worked out. Plain values: no compiler has to look at data."""

    guidance: bool
    truncation: bool
    posterior: bool
    """Of the ancestral sampler."""
    retiring: bool
    """Positions that are masked again or revised."""


def needs_of(told: Told) -> Needs:
    return Needs(
        bool(((told.weights != 0).sum(1) > 1).any()),
        bool((told.truncation < 1).any()),
        bool((told.reveal < 0).any()),
        bool((told.remask > 0).any()) or bool((told.revise > 0).any()),
    )


class Sampling(nn.Module):
    """K codes, T timesteps. Holds the schedule; nothing here branches on data."""

    power_form: Final[int] = POWER  # TorchScript reads no module globals

    def __init__(self, codes: int, timesteps: int) -> None:
        super().__init__()
        self.codes = codes
        self.schedule = Schedule(timesteps, codes)

    def forward(self, log_p: Tensor, x: Tensor, pinned: Tensor, told: Told, needs: Needs) -> tuple[Tensor, Tensor]:
        """log p(x_0) FP32 [B, L, K] after guidance, x_t INT64 [B, L] → (x_s, purity FP32), both [B, L]."""
        u_code, noise = told.uniforms[:, :, 0], gumbel(told.uniforms[:, :, 1])
        purity = purity_of(log_p)
        heat = told.temperature[:, None]
        p = power(log_p, self.sharpness(purity, told.sharpen, told.form) / heat)
        code = draw(p, u_code)
        p_code = self.at(p, code)
        masked, free = x == self.codes, pinned < 0
        here = highest(reveal_scores(told.reveal_score, purity, p_code, noise, told.order), masked, told.reveal)
        after = torch.where(here, code, x)
        if needs.posterior:
            flat = power(log_p, (1 / heat).expand_as(purity))
            after = torch.where(told.reveal[:, None] < 0, self.ancestral(flat, x, told, u_code), after)
        if needs.retiring:
            shown = ~masked & free
            scores = retire_scores(told.retire_score, self.at(p, x), self.schedule.kept(told.timestep), noise)
            gone = highest(scores, shown, told.remask)
            better = scores + told.retire_score[:, 3, None] * log_of(p_code)
            changed = highest(better, shown & ~gone & (code != x), told.revise)
            after = torch.where(changed, code, after).masked_fill(gone, self.codes)
        return torch.where(free, after, pinned), purity

    def sharpness(self, purity: Tensor, r: Tensor, form: Tensor) -> Tensor:
        return sharpness(purity, r, form, self.power_form)

    def at(self, p: Tensor, code: Tensor) -> Tensor:
        """p [B, L, K] of each position's code; a mask, and what was drawn from NaN, have none and get any."""
        return p.gather(2, code.clamp(max=self.codes - 1)[:, :, None])[:, :, 0]

    def ancestral(self, p: Tensor, tokens: Tensor, told: Told, u: Tensor) -> Tensor:
        """Every position from p(x_s | x_t)."""
        transition = self.schedule(told.timestep, told.timestep_next)
        return draw(posterior(p, tokens, told.timestep_next < 0, transition), u)
