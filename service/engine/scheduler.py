"""Which rows run in the next ``diffusion_step`` call, and for how many evaluations. Synchronous and pure.

A row is one image in progress. Rows of a call may differ in everything but k: there is no compatibility key.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.diffusion.plan import Plan


@dataclass(eq=False)
class Row:
    """One image of one job. ``tokens`` INT32 [L] is x_t after ``evaluation`` evaluations of ``plan``."""

    job_id: str
    image: int
    plan: Plan
    tokens: NDArray[np.int32]
    evaluation: int = 0
    alone: bool = False
    """Set after a failed call, to find out which row makes it fail."""

    @property
    def remaining(self) -> int:
        return len(self.plan) - self.evaluation


@dataclass(frozen=True)
class Call:
    """One ``diffusion_step`` call: ``evaluations`` (k) steps of every row."""

    rows: tuple[Row, ...]
    evaluations: int


@dataclass
class StepTimes:
    """Seconds per evaluation by batch size: a moving average of what was measured."""

    weight: float = 0.2
    seconds: dict[int, float] = field(default_factory=dict)

    def record(self, rows: int, seconds: float) -> None:
        known = self.seconds.get(rows, seconds)
        self.seconds[rows] = known + self.weight * (seconds - known)

    def expect(self, rows: int) -> float | None:
        """The measured time, or that of the nearest measured size scaled in proportion; None before any call."""
        if not self.seconds:
            return None
        nearest = min(self.seconds, key=lambda size: abs(size - rows))
        return self.seconds[nearest] * max(1.0, rows / nearest)


class Scheduler:
    """Rows waiting for a call, in the order of their turn. At most two calls run at once."""

    def __init__(self, max_batch: int, call_target_s: float) -> None:
        self.max_batch, self.call_target_s = max_batch, call_target_s
        self.times = StepTimes()
        self.idle: deque[Row] = deque()
        self.running: list[Call] = []

    def __len__(self) -> int:
        return len(self.idle) + sum(len(call.rows) for call in self.running)

    def add(self, rows: Iterable[Row]) -> None:
        """New rows go first: they are in the next call, at whatever step the others are."""
        self.idle.extendleft(rows)

    def next_call(self, waiting: int) -> Call | None:
        """The next call to start now, or None. ``waiting`` > 0 when requests wait to be admitted."""
        if not self.idle or not self.may_start():
            return None
        rows = [self.idle.popleft()] if self.idle[0].alone else self.take(lambda row: not row.alone)
        call = Call(tuple(rows), self.choose_evaluations(rows, waiting))
        self.running.append(call)
        return call

    def may_start(self) -> bool:
        """A second call only for a full batch: it hides the call's overhead, and a half batch would cost more."""
        return not self.running or (len(self.running) == 1 and len(self.idle) >= self.max_batch)

    def take(self, wanted: Callable[[Row], bool]) -> list[Row]:
        """Remove up to a batch of wanted rows from the front."""
        rows = [row for row in self.idle if wanted(row)][: self.max_batch]
        chosen = set(map(id, rows))
        self.idle = deque(row for row in self.idle if id(row) not in chosen)
        return rows

    def choose_evaluations(self, rows: list[Row], waiting: int) -> int:
        """k: what comes nearest to the target time, at most what every row still needs; 1 while somebody waits."""
        expected = self.times.expect(len(rows))
        if waiting or expected is None:
            return 1
        return max(1, min(round(self.call_target_s / expected), *(row.remaining for row in rows)))

    def finish(self, call: Call, tokens: NDArray[np.int32], seconds: float) -> list[Row]:
        """Store the grids [B, L] of a call that took ``seconds``; returns the rows that are done."""
        self.running.remove(call)
        self.times.record(len(call.rows), seconds / call.evaluations)
        for row, grid in zip(call.rows, tokens, strict=True):
            row.tokens, row.evaluation, row.alone = grid, row.evaluation + call.evaluations, False
        self.idle.extend(row for row in call.rows if row.remaining)
        return [row for row in call.rows if not row.remaining]

    def give_back(self, call: Call, alone: bool = False) -> None:
        """A call failed: its rows wait again, unchanged; each for a call of its own if ``alone``."""
        self.running.remove(call)
        for row in call.rows:
            row.alone = alone
        self.idle.extendleft(reversed(call.rows))

    def remove(self, rows: Collection[Row]) -> None:
        """Drop rows that wait; the rows of a running call come back with ``finish`` and are dropped then."""
        self.idle = deque(row for row in self.idle if row not in rows)
