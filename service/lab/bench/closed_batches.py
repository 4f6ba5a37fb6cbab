"""Request-level batching, as other image servers do it: what step batching is held against.

``python -m service.lab.bench.closed_batches`` is the worker, with the settings of ``vqd worker`` and this in place of
the scheduler. All else is the same: what it claims ahead waits in the scheduler, up to ``max_rows``; the rest waits in
the queue.
"""

from typing import TypeVar

from service.engine.row import Row
from service.engine.scheduler import Scheduler
from service.messages import Parameters
from service.settings import read_settings
from service.worker.main import run

R = TypeVar("R", bound=Row)


def alike(parameters: Parameters) -> Parameters:
    """What rows of a batch must share: all but what a batch of any server may differ in."""
    return parameters.model_copy(update={"seed": 0, "n": 1})


class ClosedBatches(Scheduler[R]):
    """A batch is closed when it begins: it runs until all its rows are done, which have equal parameters."""

    def __init__(self, max_batch: int, call_target_s: float) -> None:
        super().__init__(max_batch, call_target_s)
        self.batch: list[R] = []

    def may_start(self) -> bool:
        return not self.running

    def choose(self) -> list[R]:
        """What is left of the batch; a new one when nothing is: the first row, and the next ones that are like it."""
        rows = [row for row in self.batch if row.remaining and not row.dropped]
        if not rows:
            line = sorted(self.idle, key=lambda row: row.place)
            wanted = alike(line[0].parameters)
            rows = [row for row in line if alike(row.parameters) == wanted][: self.max_batch]
        self.batch = rows
        return rows


if __name__ == "__main__":
    run(read_settings(), ClosedBatches)
