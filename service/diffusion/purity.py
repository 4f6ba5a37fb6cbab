"""Purity-prior sampling (Eq. 8, Eq. 11, Algorithm 2): which masked positions to commit, and from what distribution."""

import torch
from torch import Tensor

POWER = 1
"""Value of ``purity_form`` for Eq. 11 with purity^r below; 0 is the linear form of the paper's code."""


def purity_of(log_p: Tensor) -> Tensor:
    """max_j p_j [B, L] (Eq. 8)."""
    return log_p.max(-1).values.exp()


def sharpness(purity: Tensor, r: Tensor, form: Tensor, power_form: int = POWER) -> Tensor:
    """Eq. 11: the exponent [B, L] of p at each position; r FP32 [B], form INT [B].

    linear: softmax((1 + r · purity / max purity) log p), as the paper's code; power: softmax(log p / purity^r).
    """
    linear = 1 + r[:, None] * purity / purity.max(-1, keepdim=True).values
    inverse = (purity ** -r[:, None]).clamp(max=1e30)  # 8192 flat codes at r = 10 would overflow float32
    return torch.where((form == power_form)[:, None], inverse, linear)


def choose_positions(weight: Tensor, masked: Tensor, count: Tensor, u: Tensor) -> Tensor:
    """Draw ``count`` [B] of the masked positions without replacement, BOOL [B, L]: Gumbel-top-n on log weights."""
    gumbel = -torch.log(-torch.log(u.clamp(min=1e-30)))
    keys = (weight.clamp(min=1e-30).log() + gumbel).masked_fill(~masked, -torch.inf)
    rank = keys.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    return (rank < count[:, None]) & masked
