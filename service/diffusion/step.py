"""The module that Triton serves as ``diffusion_step``: k evaluations of network and sampler, as one function."""

from typing import Final, Protocol

import torch
from torch import Tensor, nn

from service.diffusion.guidance import combine, normalise, power, truncate
from service.diffusion.posterior import draw, posterior
from service.diffusion.purity import POWER, purity_of, sharpness
from service.diffusion.schedule import Schedule
from service.diffusion.selection import gumbel, highest, log_of, retire_scores, reveal_scores


class Denoiser(Protocol):
    """What the step asks of a network, which is a scriptable ``nn.Module``; any other network may stand behind it."""

    def prepare(self) -> None:
        """Make ready for inference, and for that alone. Called once, before scripting."""

    def memory(self, condition: Tensor) -> Tensor:
        """What does not depend on x_t or t, from text states [B, S, D] or labels INT64 [B].

        Of six dimensions, B being the third.
        """

    def __call__(self, tokens: Tensor, timestep: Tensor, memory: Tensor) -> Tensor:
        """x_t INT64 [B, L] with mask K, timestep INT64 [B], ``memory``'s answer → logits of x_0 FP32 [B, L, K]."""


class DiffusionStep(nn.Module):
    """x_t to x_s for a batch whose rows differ in everything but shapes. Pure: all randomness is ``uniforms``.

    What a row is conditioned on comes as a list of conditions, [B, C, …], each with a weight in each evaluation. Only
    pairs of a row and a condition with a weight cost a pass through the network. ``parts``: the batch is cut into so
    many, which run side by side in TorchScript's inter-op threads. On a CPU, one part per core with one intra-op
    thread each beats all cores on every operator: nothing waits in between. Where the rows do not come out even, only
    the network's batch is cut.
    """

    power_form: Final[int] = POWER  # TorchScript reads no module globals

    def __init__(self, transformer: Denoiser, codes: int, timesteps: int) -> None:
        super().__init__()
        self.parts = 1
        self.codes = codes
        self.transformer = transformer
        self.schedule = Schedule(timesteps, codes)

    def run(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The contract's inputs in order, of which the third is what the rows are conditioned on.

        → (tokens_out INT32 [B, L], purity FP16 [B, L]).
        """
        rows = inputs[0].shape[0]
        size = (rows + self.parts - 1) // self.parts
        if self.parts == 1 or 10 * (size * self.parts - rows) > rows:
            return self.evaluate(inputs, self.parts)
        futures = [torch.jit.fork(self.evaluate, [x[i : i + size] for x in inputs], 1) for i in range(0, rows, size)]
        outputs = [torch.jit.wait(future) for future in futures]
        return torch.cat([grids for grids, _ in outputs]), torch.cat([purity for _, purity in outputs])

    def evaluate(self, inputs: list[Tensor], parts: int) -> tuple[Tensor, Tensor]:
        """``run`` with the network's batch in ``parts``."""
        tokens, pinned, conditions, timestep, timestep_next, weights, reveal, remask, revise = inputs[:9]
        reveal_score, retire_score, order, sharpen, temperature, truncation, form, uniforms = inputs[9:]
        free = pinned < 0
        x = torch.where(free, tokens, pinned).long()
        # Pairs of condition and row that have a weight in any evaluation, condition by condition.
        condition, row = (weights != 0).any(1).t().nonzero().unbind(1)
        memory = self.memory(conditions[row, condition], condition, parts)
        purity = torch.zeros_like(uniforms[:, 0, :, 0])
        for e in range(timestep.shape[1]):
            t, t_next = timestep[:, e].long(), timestep_next[:, e].long()
            log_p = self.predict(x, t, memory, row, condition, weights[:, e], truncation[:, e])
            u_code, noise = uniforms[:, e, :, 0], gumbel(uniforms[:, e, :, 1])
            purity = purity_of(log_p)
            p = power(log_p, self.sharpness(purity, sharpen[:, e], form[:, 0]) / temperature[:, e, None])
            code = draw(p, u_code)
            p_code = self.at(p, code)
            masked, count = x == self.codes, reveal[:, e]
            here = highest(reveal_scores(reveal_score[:, e], purity, p_code, noise, order), masked, count)
            after = torch.where(here, code, x)
            if bool((count < 0).any()):
                flat = power(log_p, (1 / temperature[:, e, None]).expand_as(purity))
                after = torch.where(count[:, None] < 0, self.ancestral(flat, x, t, t_next, u_code), after)
            if bool((remask[:, e] > 0).any()) or bool((revise[:, e] > 0).any()):
                shown = ~masked & free
                scores = retire_scores(retire_score[:, e], self.at(p, x), self.schedule.kept(t), noise)
                gone = highest(scores, shown, remask[:, e])
                better = scores + retire_score[:, e, 3, None] * log_of(p_code)
                changed = highest(better, shown & ~gone & (code != x), revise[:, e])
                after = torch.where(changed, code, after).masked_fill(gone, self.codes)
            x = torch.where(free, after, pinned.long())
        return x.int(), purity.half()

    def memory(self, conditions: Tensor, condition: Tensor, parts: int) -> list[Tensor]:
        """The network's memory of P conditions [P, …], one tensor for each of ``parts``."""
        if parts > 1:
            size = (conditions.shape[0] + parts - 1) // parts
            futures = [torch.jit.fork(self.transformer.memory, part) for part in conditions.split(size)]
            return [torch.jit.wait(future) for future in futures]
        first = int((condition == 0).sum())
        others = conditions.shape[0] - first
        if others > 1 and bool((conditions[first + 1 :] == conditions[first]).all()):  # as a rule, the model's own null
            known = self.transformer.memory(conditions[: first + 1])
            last = known[:, :, -1:].expand(-1, -1, others - 1, -1, -1, -1)
            return [torch.cat([known, last], 2)]
        return [self.transformer.memory(conditions)]

    def predict(
        self,
        tokens: Tensor,
        timestep: Tensor,
        memory: list[Tensor],
        row: Tensor,
        condition: Tensor,
        weights: Tensor,
        truncation: Tensor,
    ) -> Tensor:
        """log p(x_0) FP32 [B, L, K] after guidance and truncation, from the pairs that have a weight here."""
        wanted = weights[row, condition] != 0
        if not bool(wanted.all()):
            row, condition = row[wanted], condition[wanted]
            kept = torch.cat(memory, 2).index_select(2, wanted.nonzero()[:, 0])
            memory = kept.split((row.shape[0] + len(memory) - 1) // len(memory), 2)
        log_p = combine(self.denoise_parts(tokens[row], timestep[row], memory), row, condition, weights)
        if bool((truncation < 1).any()):
            log_p = torch.where((truncation < 1)[:, None, None], truncate(log_p, truncation), log_p)
        return log_p

    def denoise_parts(self, tokens: Tensor, timestep: Tensor, memory: list[Tensor]) -> Tensor:
        """log p(x_0) FP32 [P, L, K] of the network."""
        if len(memory) == 1:
            return self.denoise(tokens, timestep, memory[0])
        sizes = [part.shape[2] for part in memory]
        parts = zip(tokens.split(sizes), timestep.split(sizes), memory)  # noqa: B905  TorchScript knows no strict
        futures = [torch.jit.fork(self.denoise, x, t, part) for x, t, part in parts]
        return torch.cat([torch.jit.wait(future) for future in futures])

    def denoise(self, tokens: Tensor, timestep: Tensor, memory: Tensor) -> Tensor:
        return normalise(self.transformer(tokens, timestep, memory))

    def at(self, p: Tensor, code: Tensor) -> Tensor:
        """p [B, L, K] of each position's code; a mask, and what was drawn from NaN, have none and get any."""
        return p.gather(2, code.clamp(max=self.codes - 1)[:, :, None])[:, :, 0]

    def sharpness(self, purity: Tensor, r: Tensor, form: Tensor) -> Tensor:
        return sharpness(purity, r, form, self.power_form)

    def ancestral(self, p: Tensor, tokens: Tensor, timestep: Tensor, timestep_next: Tensor, u: Tensor) -> Tensor:
        """Every position from p(x_s | x_t)."""
        transition = self.schedule(timestep, timestep_next)
        return draw(posterior(p, tokens, timestep_next < 0, transition), u)
