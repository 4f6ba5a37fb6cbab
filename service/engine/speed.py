"""How fast a worker is when there is enough to do."""

from dataclasses import dataclass

import numpy as np

from service.engine.scheduler import StepTimes
from service.triton.contract import StepBatch


@dataclass
class Speed:
    """``times``: what calls take. ``passes``: of the network, in one evaluation of a picture; a moving average, since
    guidance takes two and what is asked for changes."""

    times: StepTimes
    max_batch: int
    weight: float = 0.2
    passes: float | None = None

    def record(self, batch: StepBatch) -> None:
        """A call that was answered: who has several conditions takes a pass for each."""
        passes = np.count_nonzero(batch.weights) / batch.timestep.size
        known = passes if self.passes is None else self.passes
        self.passes = known + self.weight * (passes - known)

    @property
    def passes_per_s(self) -> float | None:
        """With full calls, one at a time; None before any."""
        call_s = self.times.expect(self.max_batch)
        return self.max_batch * self.passes / call_s if call_s and self.passes else None
