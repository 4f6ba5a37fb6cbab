"""The few statistics that the benchmarks report. Pure."""

import math
from collections.abc import Sequence
from statistics import median

__all__ = ["median", "quantile", "upper_bound"]


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value that at least a share ``q`` of all values do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(q * len(values)) - 1)]


def upper_bound(hits: int, trials: int, confidence: float = 0.95) -> float:
    """The largest rate that ``hits`` in ``trials`` leave plausible (Clopper-Pearson, one-sided)."""
    if hits >= trials:
        return 1.0
    low, high = hits / trials, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        low, high = (rate, high) if at_most(hits, trials, rate) > 1 - confidence else (low, rate)
    return high


def at_most(hits: int, trials: int, rate: float) -> float:
    """P(X ≤ hits) for X binomial, 0 < rate < 1; in logarithms, since the coefficients overflow."""
    logs = (
        math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
        + k * math.log(rate) + (trials - k) * math.log1p(-rate)
        for k in range(hits + 1)
    )  # fmt: skip
    return math.fsum(map(math.exp, logs))
