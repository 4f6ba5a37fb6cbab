"""Guidance that changes from evaluation to evaluation: s as a function of how much of the picture is there."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidRequest
from service.messages import Parameters

Floats = NDArray[np.float64]
LATE = 0.5
"""``interval`` guides from the evaluation on that finds so much of the picture revealed."""

GUIDANCE_SCHEDULES: Mapping[str, Callable[[float, Floats], Floats]] = {
    "constant": lambda s, visible: np.full_like(visible, s),
    "ramp": lambda s, visible: 1 + (s - 1) * visible,
    "interval": lambda s, visible: np.where(visible >= LATE, s, 1.0),
    "cosine": lambda s, visible: 1 + (s - 1) * (1 - np.cos(np.pi * visible**3)) / 2,
}
"""Name → (guidance scale, revealed share before each evaluation FP64 [N]) → s of each evaluation (arXiv 2507.08965)."""


def guidance_of(parameters: Parameters, visible: Floats) -> Floats:
    """s of each evaluation [N]; at s = 1 it takes no null pass. Raises InvalidRequest for a list of another length."""
    wanted = parameters.guidance_schedule
    if isinstance(wanted, str):
        return GUIDANCE_SCHEDULES[wanted](parameters.guidance_scale, visible)
    if len(wanted) != len(visible):
        raise InvalidRequest(
            "guidance_schedule",
            f"has {len(wanted)} values, but this request takes {len(visible)} evaluations: give one for each",
        )
    return np.array(wanted)


def known_schedule(name: str) -> str:
    """``name``, for validators. Raises ValueError for one that this version does not know."""
    if name not in GUIDANCE_SCHEDULES:
        raise ValueError(f"must be one of {', '.join(GUIDANCE_SCHEDULES)}, or a list of guidance scales, not {name!r}")
    return name


def weights_of(scales: Floats) -> NDArray[np.float32]:
    """Weights FP32 [N, 2] of condition and null (Eq. 7): s and 1 − s."""
    s = scales.astype(np.float32)
    return np.stack([s, 1 - s], axis=1)
