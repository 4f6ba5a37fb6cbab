"""Discrete classifier-free guidance (Eq. 7), truncation and sharpening, on log p(x_0)."""

import torch
from torch import Tensor

FLOOR = -70.0
"""log p below this counts as impossible, as in the paper's code."""
BISECTIONS = 30
RATIO_CAP = 20.0
"""A condition with a negative weight lifts no code by more than its weight times this, in log p."""


# TorchScript reads no module globals, but keeps default values: hence ``floor`` below.
def normalise(log_p: Tensor, floor: float = FLOOR) -> Tensor:
    return log_p.log_softmax(-1).clamp(floor, 0.0)


def power(log_p: Tensor, exponent: Tensor, floor: float = FLOOR) -> Tensor:
    """p^exponent, normalised: log p [B, L, K] and exponent [B, L] to p.

    What is impossible stays so: a small exponent would revive it.
    """
    return (log_p * exponent[:, :, None]).masked_fill(log_p <= floor, -torch.inf).softmax(-1)


def combine(
    log_p: Tensor, row: Tensor, condition: Tensor, weights: Tensor, guided: bool = True, cap: float = RATIO_CAP
) -> Tensor:
    """Σ_c g_c log p_c of each row, normalised: Eq. 7 on x_0, for any number of conditions.

    ``log_p`` [P, L, K] normalised, one for each pair of ``row`` and ``condition`` INT64 [P]; ``weights`` [B, C] with
    Σ g = 1, 0 where there is no pair. It is worked out as log p_∅ + Σ g_c (log p_c − log p_∅), ∅ being the row's last
    condition. A row with a single one keeps it to the bit, so its evaluations do not depend on which others share its
    call. ``guided``: whether any row has several.
    """
    rows, conditions = weights.shape
    size = [conditions * rows, log_p.shape[1], log_p.shape[2]]
    slots = torch.zeros(size, dtype=log_p.dtype, device=log_p.device)
    slots = slots.index_copy(0, condition * rows + row, log_p)
    if conditions == 1:
        return slots
    each = slots.unflatten(0, [conditions, rows])
    return steer(each, weights, cap) if guided else unsteered(each, weights)


def unsteered(log_p: Tensor, weights: Tensor) -> Tensor:
    """log p of each row's last condition that has a weight: [C, B, L, K] and [B, C] to [B, L, K]."""
    numbers = torch.arange(log_p.shape[0], device=weights.device)
    last = torch.where(weights != 0, numbers, -1).amax(1).clamp(min=0)
    return log_p.gather(0, last[None, :, None, None].expand(1, -1, log_p.shape[2], log_p.shape[3]))[0]


def steer(log_p: Tensor, weights: Tensor, cap: float = RATIO_CAP) -> Tensor:
    """``combine`` of log p with a place for each pair [C, B, L, K], whatever stands where there is no weight."""
    base = unsteered(log_p, weights)
    g = weights.t()[:, :, None, None]
    ratio = log_p - base
    # What nobody predicts is at the floor: led away from with all its weight, it would become likely.
    ratio = torch.where(g < 0, ratio.clamp(min=-cap), ratio)
    several = (weights != 0).sum(1) > 1
    return torch.where(several[:, None, None], normalise(base + (g * ratio).sum(0)), base)


def truncate(log_p: Tensor, rate: Tensor) -> Tensor:
    """Keep the smallest set of codes whose mass reaches ``rate`` [B] > 0, so always the top one; normalised."""
    ordered, order = log_p.sort(dim=-1, descending=True)
    mass_before = ordered.exp().cumsum(-1) - ordered.exp()
    dropped = mass_before >= rate[:, None, None]
    return normalise(log_p.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), -torch.inf))


def truncate_by_threshold(log_p: Tensor, rate: Tensor, floor: float = FLOOR) -> Tensor:
    """``truncate`` without sorting, which exporters and TensorRT cannot do: codes of equal p stay or go together.

    The least log p that is kept is found by bisection, to less than what float32 tells apart in most of its range.
    """
    p = log_p.exp()
    low = torch.full_like(p[:, :, 0], floor)  # all that are at least this have enough mass
    high = torch.ones_like(low)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        enough = torch.where(log_p >= middle[:, :, None], p, 0.0).sum(-1) >= rate[:, None]
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    return normalise(log_p.masked_fill(log_p < low[:, :, None], -torch.inf))
