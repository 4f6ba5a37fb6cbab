"""A request's evaluations, known before the first one runs: timesteps, counts and guidance as arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidRequest
from service.messages import Parameters

ANCESTRAL = -1
"""``reveal`` value of an evaluation that samples the posterior instead of committing masked positions."""
GAMMA_BAR = (0.000009, 0.99999)
"""Cumulative mask probability at the first and the last timestep; linear between."""


@dataclass(frozen=True)
class Plan:
    """N evaluations. ``timestep``, ``timestep_next``, ``reveal`` INT32 [N]; ``guidance`` FP32 [N]."""

    timestep: NDArray[np.int32]
    timestep_next: NDArray[np.int32]
    reveal: NDArray[np.int32]
    guidance: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.timestep)


def strided(evaluations: int, timesteps: int) -> NDArray[np.int32]:
    """The N+1 timesteps T-1 … -1 of an exact stride through the schedule."""
    left = timesteps * np.arange(evaluations, -1, -1, dtype=np.int32)
    return -(-left // evaluations) - 1  # whole numbers: a rounded quotient would now and then miss by one


def nearest_timestep(masked: NDArray[np.float64], timesteps: int) -> NDArray[np.int32]:
    """The timestep whose cumulative mask probability is nearest to each masked fraction."""
    low, high = GAMMA_BAR
    exact = (masked - low) / (high - low) * (timesteps - 1)
    nearest: NDArray[np.float64] = np.rint(exact).clip(0, timesteps - 1)
    return nearest.astype(np.int32)


def constant_guidance(parameters: Parameters, evaluations: int) -> NDArray[np.float32]:
    return np.full(evaluations, parameters.guidance_scale, np.float32)


def even_evaluations(parameters: Parameters, tokens: int) -> int:
    """max(steps, ⌈tokens / z⌉). Raises InvalidRequest for more steps than tokens, or without z."""
    sampler = parameters.sampler
    if parameters.tokens_per_step is None:
        raise InvalidRequest("tokens_per_step", f"is needed by sampler {sampler!r}; from 1 to {tokens}")
    if parameters.steps > tokens:
        raise InvalidRequest("steps", f"must be at most {tokens} (the tokens of an image) with sampler {sampler!r}")
    return max(parameters.steps, -(-tokens // parameters.tokens_per_step))


def even_plan(parameters: Parameters, tokens: int, timesteps: int) -> Plan:
    """Reveal counts that differ by at most one and never exceed ``tokens_per_step``.

    With ``final_resample`` the last evaluation draws every position anew from p(x_0), as the paper's code does.
    """
    n = even_evaluations(parameters, tokens)
    committed = np.arange(n + 1) * tokens // n
    reveal = np.diff(committed).astype(np.int32)
    timestep = nearest_timestep(1 - committed[:-1] / tokens, timesteps)
    if parameters.final_resample:
        reveal[-1] = ANCESTRAL
    return Plan(timestep, np.append(timestep[1:], np.int32(-1)), reveal, constant_guidance(parameters, n))


def ancestral_plan(parameters: Parameters, tokens: int, timesteps: int) -> Plan:
    """``steps`` strides through the whole schedule, every position from the posterior at each."""
    n = parameters.steps
    walk = strided(n, timesteps)
    return Plan(walk[:-1], walk[1:], np.full(n, ANCESTRAL, np.int32), constant_guidance(parameters, n))
