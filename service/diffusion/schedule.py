"""VQ-Diffusion's mask-and-replace schedule: cumulative probabilities linear in t, exact for any stride."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

ALPHA_BAR = (0.99999, 0.000009)
GAMMA_BAR = (0.000009, 0.99999)


class Transition(NamedTuple):
    """Probabilities between timesteps s < t, each FP32 [B]; α keeps, β replaces by each code, γ masks.

    ``*_t`` and ``*_s`` are cumulative from x_0. s = -1 is x_0 itself: ᾱ = 1, β̄ = γ̄ = 0.
    """

    alpha: Tensor
    beta: Tensor
    gamma: Tensor
    alpha_t: Tensor
    beta_t: Tensor
    gamma_t: Tensor
    alpha_s: Tensor
    beta_s: Tensor
    gamma_s: Tensor


class Schedule(nn.Module):
    """T timesteps over K codes. Entry t+1 of each buffer belongs to timestep t, entry 0 to x_0."""

    alpha_bar: Tensor
    gamma_bar: Tensor
    replaced: Tensor

    def __init__(self, timesteps: int, codes: int) -> None:
        super().__init__()
        self.codes = codes
        alpha = torch.cat([torch.ones(1), torch.linspace(*ALPHA_BAR, timesteps, dtype=torch.float64)])
        gamma = torch.cat([torch.zeros(1), torch.linspace(*GAMMA_BAR, timesteps, dtype=torch.float64)])
        self.register_buffer("alpha_bar", alpha.float(), persistent=False)
        self.register_buffer("gamma_bar", gamma.float(), persistent=False)
        self.register_buffer("replaced", (1 - alpha - gamma).float(), persistent=False)

    def forward(self, t: Tensor, s: Tensor) -> Transition:
        """The transition between timesteps ``t`` and ``s`` INT [B], s < t."""
        alpha_t, gamma_t, replaced_t = self.alpha_bar[t + 1], self.gamma_bar[t + 1], self.replaced[t + 1]
        alpha_s, gamma_s, replaced_s = self.alpha_bar[s + 1], self.gamma_bar[s + 1], self.replaced[s + 1]
        # 1 - γ̄ is near 1e-5 at the end of the schedule: built from its parts it keeps float32's full precision,
        # and so does 1 - α - γ in the form below, where the plain difference would be mostly rounding.
        kept_t, kept_s = alpha_t + replaced_t, alpha_s + replaced_s
        alpha = alpha_t / alpha_s
        gamma = 1 - kept_t / kept_s
        beta = (replaced_t * alpha_s - alpha_t * replaced_s) / (kept_s * alpha_s) / self.codes
        return Transition(
            alpha, beta, gamma, alpha_t, replaced_t / self.codes, gamma_t, alpha_s, replaced_s / self.codes, gamma_s
        )

    @torch.jit.export
    def kept(self, t: Tensor) -> Tensor:
        """FP32 [B]: the chance that a code that is visible at ``t`` INT [B] is the one of x_0, never replaced."""
        alpha = self.alpha_bar[t + 1]
        return alpha / (alpha + self.replaced[t + 1] / self.codes)
