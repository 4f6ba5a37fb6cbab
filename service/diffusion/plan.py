"""A request's evaluations, known before the first one runs: what the step is told in each of them, as arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]
ANCESTRAL = -1
"""``reveal`` of an evaluation that samples every position from the posterior instead of revealing masked ones."""


@dataclass(frozen=True)
class Plan:
    """N evaluations of one image of L tokens; fields are the tensors of ``diffusion_step``, for one row.

    ``timestep``, ``timestep_next``, ``reveal``, ``remask``, ``revise`` INT32 [N]; ``weights`` FP32 [N, C];
    ``reveal_score``, ``retire_score`` FP32 [N, 4]; ``sharpen``, ``temperature``, ``truncation`` FP32 [N];
    ``order`` FP32 [L].
    """

    timestep: Int32
    timestep_next: Int32
    weights: Float32
    reveal: Int32
    remask: Int32
    revise: Int32
    reveal_score: Float32
    retire_score: Float32
    sharpen: Float32
    temperature: Float32
    truncation: Float32
    order: Float32

    def __len__(self) -> int:
        return len(self.timestep)

    @property
    def passes(self) -> int:
        """Passes through the network: one for each evaluation and condition that has a weight."""
        return int(np.count_nonzero(self.weights))


PER_IMAGE = ("order",)
"""Fields of a plan that are the same in all its evaluations."""
