"""Which positions an evaluation reveals, masks again or revises: the highest scores, each a sum of weighted terms."""

import torch
from torch import Tensor

LEAST = 1e-30
"""Probabilities and uniforms below this count as this much: their logarithms stay finite."""


def gumbel(u: Tensor, least: float = LEAST) -> Tensor:
    """Standard Gumbel noise from uniforms."""
    return -torch.log(-torch.log(u.clamp(min=least)))


def log_of(p: Tensor, least: float = LEAST) -> Tensor:
    return p.clamp(min=least).log()


def highest(scores: Tensor, among: Tensor, count: Tensor) -> Tensor:
    """BOOL [B, L]: the ``count`` [B] positions ``among`` BOOL [B, L] with the highest scores; of equals the first."""
    keys = scores.masked_fill(~among, -torch.inf)
    one, other = keys[:, :, None], keys[:, None, :]
    place = torch.arange(keys.shape[1], device=keys.device)
    # Its rank is the number of those before it: as comparisons, which every exporter has, not as a stable sort.
    before = (other > one) | ((other == one) & (place[None, :] < place[:, None]))
    return (before.sum(-1) < count[:, None]) & among


def reveal_scores(a: Tensor, purity: Tensor, p_code: Tensor, noise: Tensor, order: Tensor) -> Tensor:
    """a₁ log purity + a₂ log p(code) + a₃ G − a₄ order, [B, L]; coefficients a [B, 4]."""
    a1, a2, a3, a4 = a[:, :, None].unbind(1)
    return a1 * log_of(purity) + a2 * log_of(p_code) + a3 * noise - a4 * order


def retire_scores(b: Tensor, q: Tensor, kept: Tensor, noise: Tensor) -> Tensor:
    """b₁ (−log q) + b₂ log(1 − kept · q) + b₃ G, [B, L], of visible positions.

    q [B, L] is what the network gives to the present code; ``kept`` [B] the chance that it was never replaced.
    """
    b1, b2, b3, _ = b[:, :, None].unbind(1)
    return -b1 * log_of(q) + b2 * log_of(1 - kept[:, None] * q) + b3 * noise
