"""The best that a machine can do with given arrivals: the service's own scheduler on a clock of measured model times.

Nothing else takes any time: no queue, no gateway, no transport. Needs no torch, as the times are read from a file.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from service.diffusion.samplers import make_plan
from service.engine.row import Row, masked
from service.engine.scheduler import Scheduler, StepCall
from service.errors import SetupError
from service.gateway.schemas import GenerateRequest
from service.gateway.validation import resolve
from service.lab.bench.cases import Fields
from service.lab.bench.levels import Served
from service.messages import Record, complaints
from service.serving import ModelInfo


class ModelTimes(Record):
    """Seconds by batch size. ``guided``, ``unguided``: one evaluation of rows of two passes each, of one pass each."""

    model: ModelInfo
    encode: dict[int, float]
    decode: dict[int, float]
    guided: dict[int, float]
    unguided: dict[int, float]
    facts: dict[str, Any]

    @property
    def max_batch(self) -> int:
        return max(self.guided)

    def evaluation(self, passes: Sequence[int]) -> float:
        """One evaluation of rows that need so many passes each."""
        share = sum(passes) / len(passes) - 1
        return self.unguided[len(passes)] * (1 - share) + self.guided[len(passes)] * share


def read_times(path: Path) -> ModelTimes:
    """What ``vqd bench times`` wrote. Raises SetupError."""
    try:
        return ModelTimes.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise SetupError(f"{path} is not what `vqd bench times` writes: {complaints(error)}") from None


@dataclass(eq=False)
class Visit:
    """One request. ``texts``: what the encoder is asked for. Times since the beginning."""

    due: float
    rows: list["VisitRow"]
    texts: int
    calls_before: int = 0
    call: int = 0
    first: float = 0.0
    undrawn: int = 0


@dataclass(eq=False, kw_only=True)
class VisitRow(Row):
    visit: Visit


def visits_of(cases: Sequence[Fields], due: Sequence[float], model: ModelInfo) -> list[Visit]:
    visits = []
    for fields, due_s in zip(cases, due, strict=True):
        body = GenerateRequest.model_validate(fields)
        parameters = resolve(body, model)
        visit = Visit(due_s, [], 2 if body.negative_prompt else 1, undrawn=parameters.n)
        blank = masked(model.tokens, model.codes)
        visit.rows = [
            VisitRow(parameters=parameters, image=image, plan=plan, tokens=blank, visit=visit)
            for image in parameters.images
            for plan in [make_plan(parameters, model.tokens, model.timesteps, image)]
        ]
        visits.append(visit)
    return visits


@dataclass
class Simulation:
    """A worker: encoding and decoding go before the next step call, each for all that is there."""

    times: ModelTimes
    scheduler: Scheduler[VisitRow]
    max_rows: int
    now: float = 0.0
    rows: int = 0
    line: deque[Visit] = field(default_factory=deque)
    finished: deque[VisitRow] = field(default_factory=deque)
    served: list[Served] = field(default_factory=list)

    def run(self, visits: Sequence[Visit]) -> list[Served]:
        """In the order of their ends."""
        coming = deque(visits)
        while coming or self.line or self.rows:
            while coming and coming[0].due <= self.now:
                coming[0].calls_before = self.scheduler.calls
                self.line.append(coming.popleft())
            # `or` stops at the first that has something to do.
            if not (self.encode() or self.decode() or self.step()):
                self.now = coming[0].due
        return self.served

    def encode(self) -> bool:
        admitted = []
        while self.line and self.rows + len(self.line[0].rows) <= self.max_rows:
            admitted.append(self.line.popleft())
            self.rows += len(admitted[-1].rows)
        texts = sum(visit.texts for visit in admitted)
        for size in chunks(texts, self.times.max_batch):
            self.now += self.times.encode[size]
        for visit in admitted:
            self.scheduler.add(visit.rows)
        return bool(admitted)

    def decode(self) -> bool:
        if not self.finished:
            return False
        batch = [self.finished.popleft() for _ in range(min(len(self.finished), self.times.max_batch))]
        self.now += self.times.decode[len(batch)]
        self.rows -= len(batch)
        for visit in (row.visit for row in batch):
            visit.undrawn -= 1
            if not visit.undrawn:
                first, done = visit.first - visit.due, self.now - visit.due
                self.served.append(Served(visit.due, first, done, visit.call, len(visit.rows)))
        return True

    def step(self) -> bool:
        call = self.scheduler.next_call(0)
        if call is None:
            return False
        for visit in (row.visit for row in call.rows if not row.visit.call):
            visit.call, visit.first = self.scheduler.calls - visit.calls_before, self.now
        seconds = self.seconds(call)
        self.now += seconds
        grids = np.stack([row.tokens for row in call.rows])
        self.finished += self.scheduler.finish(call, grids, seconds)
        return True

    def seconds(self, call: StepCall[VisitRow]) -> float:
        weights = [row.plan.weights[row.evaluation : row.evaluation + call.evaluations] for row in call.rows]
        passes = [np.count_nonzero(one, axis=1) for one in weights]
        return sum(self.times.evaluation([int(one[e]) for one in passes]) for e in range(call.evaluations))


def chunks(count: int, size: int) -> list[int]:
    return [min(size, count - i) for i in range(0, count, size)]


def simulate(
    cases: Sequence[Fields],
    due: Sequence[float],
    times: ModelTimes,
    scheduling: Callable[[int, float], Scheduler[VisitRow]],
    call_target_s: float,
    max_rows: int,
) -> list[Served]:
    scheduler = scheduling(times.max_batch, call_target_s)
    return Simulation(times, scheduler, max_rows).run(visits_of(cases, due, times.model))
