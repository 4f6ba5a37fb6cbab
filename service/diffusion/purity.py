"""Purity (Eq. 8) and what it does to the distribution of a position (Eq. 11)."""

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
