"""Which rows run in the next ``diffusion_step`` call, and for how many evaluations. Synchronous and pure.

Rows of a call may differ in everything but k: there is no compatibility key.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from service.engine.row import Row
from service.triton.contract import Int32

R = TypeVar("R", bound=Row)
PATIENT_FIRST_EVERY = 4
"""One call in so many takes patient rows first."""


@dataclass(frozen=True)
class StepCall(Generic[R]):
    """One ``diffusion_step`` call: ``evaluations`` (k) steps of every row."""

    rows: tuple[R, ...]
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


class Scheduler(Generic[R]):
    """Rows waiting for a call. At most two calls run at once.

    When there are more than a call carries, new ones go first: they are in the next one, at whatever step the others
    are. Then the oldest, for if all took turns, all would end late.
    A row that is dropped while it waits, or while its call runs, is not seen again.
    """

    def __init__(self, max_batch: int, call_target_s: float) -> None:
        self.max_batch, self.call_target_s = max_batch, call_target_s
        self.times = StepTimes()
        self.idle: list[R] = []
        self.running: list[StepCall[R]] = []
        self.calls = self.added = 0

    def __len__(self) -> int:
        waiting = sum(not row.dropped for row in self.idle)
        return waiting + sum(len(call.rows) for call in self.running)

    def add(self, rows: Iterable[R]) -> None:
        """New rows, or rows that come back."""
        for row in rows:
            self.added += 1
            row.place, row.begun = self.added, False
            self.idle.append(row)

    def next_call(self, waiting: int, most: int | None = None) -> StepCall[R] | None:
        """The next call to start now, or None. ``waiting`` > 0 when requests wait to be admitted. ``most``: of k."""
        self.idle = [row for row in self.idle if not row.dropped]
        if not self.idle or not self.may_start():
            return None
        self.calls += 1
        first = min(self.idle, key=self.turn)
        rows = [first] if first.alone else self.choose()
        chosen = set(map(id, rows))
        self.idle = [row for row in self.idle if id(row) not in chosen]
        for row in rows:
            row.begun = True
        call = StepCall(tuple(rows), self.choose_evaluations(rows, waiting, most))
        self.running.append(call)
        return call

    def may_start(self) -> bool:
        """A second call only for a full batch: it hides the call's overhead, and a half batch would cost more."""
        return not self.running or (len(self.running) == 1 and self.full)

    @property
    def full(self) -> bool:
        """Whether more wait than would fit, or just as many."""
        return len(self.idle) >= self.max_batch

    def turn(self, row: R) -> tuple[bool, bool, bool, int]:
        """Smaller is earlier: the urgent ones, and now and then the patient ones, or urgent load could starve them."""
        patient_first = self.calls % PATIENT_FIRST_EVERY == 0
        age = row.place if row.begun else -row.place
        return row.urgent is patient_first, row.begun, not row.alone, age

    def choose(self) -> list[R]:
        """Up to a batch of the rows that need not be alone."""
        return sorted((row for row in self.idle if not row.alone), key=self.turn)[: self.max_batch]

    def choose_evaluations(self, rows: Sequence[R], waiting: int, most: int | None = None) -> int:
        """k: what comes nearest to the target time, at most what every row still needs; 1 while somebody waits."""
        expected = self.times.expect(len(rows))
        if waiting or expected is None:
            return 1
        wanted = round(self.call_target_s / expected)
        return max(1, min(most or wanted, wanted, *(row.remaining for row in rows)))

    def expected_s(self, call: StepCall[R]) -> float | None:
        """How long the call should take; None before any was measured."""
        expected = self.times.expect(len(call.rows))
        return None if expected is None else expected * call.evaluations

    @property
    def under_way_s(self) -> float:
        """How long the calls that run now should take, from their beginning."""
        return max((self.expected_s(call) or 0.0 for call in self.running), default=0.0)

    def finish(self, call: StepCall[R], tokens: Int32, seconds: float) -> list[R]:
        """Store the grids [B, L] of a call that took ``seconds``; returns the rows that are done."""
        self.running.remove(call)
        self.times.record(len(call.rows), seconds / call.evaluations)
        for row, grid in zip(call.rows, tokens, strict=True):
            row.advance(grid, call.evaluations)
        self.idle.extend(row for row in call.rows if row.remaining)
        return [row for row in call.rows if not row.remaining]

    def give_back(self, call: StepCall[R], alone: bool = False) -> None:
        """A call failed: its rows wait again, unchanged, before all others.

        If ``alone``, each for a call of its own, behind those that have not had one.
        """
        self.running.remove(call)
        for row in call.rows:
            row.alone = row.begun = alone
        self.idle.extend(call.rows)
