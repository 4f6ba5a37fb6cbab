"""Discrete classifier-free guidance (Eq. 7), truncation and sharpening, on log p(x_0)."""

import torch
from torch import Tensor

FLOOR = -70.0
"""log p below this counts as impossible, as in the paper's code."""


# TorchScript reads no module globals, but keeps default values: hence ``floor`` below.
def normalise(log_p: Tensor, floor: float = FLOOR) -> Tensor:
    return log_p.log_softmax(-1).clamp(floor, 0.0)


def power(log_p: Tensor, exponent: Tensor, floor: float = FLOOR) -> Tensor:
    """p^exponent, normalised: log p [B, L, K] and exponent [B, L] to p.

    What is impossible stays so: a small exponent would revive it.
    """
    return (log_p * exponent[:, :, None]).masked_fill(log_p <= floor, -torch.inf).softmax(-1)


def guide(conditional: Tensor, null: Tensor, scale: Tensor) -> Tensor:
    """log p_∅ + s (log p_y − log p_∅), normalised: normalised log p [B, L, K] twice, s [B]. Eq. 7 on x_0.

    s = 1 gives log p_y to the bit, so a row's evaluations do not depend on which others share its call.
    """
    s = scale[:, None, None]
    return torch.where(s == 1, conditional, normalise(null + s * (conditional - null)))


def truncate(log_p: Tensor, rate: Tensor) -> Tensor:
    """Keep the smallest set of codes whose mass reaches ``rate`` [B], always the top one; normalised."""
    ordered, order = log_p.sort(dim=-1, descending=True)
    mass_before = ordered.exp().cumsum(-1) - ordered.exp()
    dropped = mass_before >= rate[:, None, None]
    dropped[:, :, 0] = False
    return normalise(log_p.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), -torch.inf))
