"""The loop over step calls: schedule, run, post-process."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

from service.engine.batch import make_batch
from service.engine.inference import Inference
from service.engine.scheduler import Scheduler, StepCall
from service.engine.speed import Speed
from service.errors import InferenceFailed, TritonUnavailable
from service.triton.contract import Float16, StepOutput
from service.worker.decoder import Decoder
from service.worker.health import Health
from service.worker.job import JobRow
from service.worker.traces import Traces

CALLS_KNOWN = 1000
"""So many calls back it is known when each began: a job that waited for more is told that it waited for these."""


class Stepper:
    """``arriving``: prompts that are being encoded now; as long as there are any, calls are kept short."""

    def __init__(
        self, scheduler: Scheduler[JobRow], inference: Inference, decoder: Decoder, health: Health, traces: Traces
    ) -> None:
        self.scheduler, self.inference, self.decoder = scheduler, inference, decoder
        self.health, self.traces = health, traces
        self.speed = Speed(scheduler.times, scheduler.max_batch)
        self.arriving = 0
        self.on_step: list[Callable[[Sequence[JobRow], Float16], None]] = []
        """Told of each call that has come to something: its rows, and their purity [B, L]."""
        self.pace: Callable[[], int | None] = lambda: None
        """The most evaluations of the next call, where somebody wants to see more of what is between calls."""
        self.begun: deque[float] = deque(maxlen=CALLS_KNOWN)
        self.changed = inference.turns.freed
        """Set when there may be a call to start."""
        health.on_ready.append(self.changed.set)

    def add(self, rows: list[JobRow]) -> None:
        self.scheduler.add(row for row in rows if row.remaining)
        self.decoder.add([row for row in rows if not row.remaining])
        self.changed.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as calls:
            while True:
                call = await self.schedule()
                calls.create_task(self.run_call(call), name="worker step call")

    async def schedule(self) -> StepCall[JobRow]:
        """The next call, with its turn taken: every row that is here then is in it."""
        turns = self.inference.turns
        while True:
            if self.health.running and turns.free and (call := self.next_call()):
                await turns.take()
                return call
            await self.changed.wait()
            self.changed.clear()

    def next_call(self) -> StepCall[JobRow] | None:
        return self.scheduler.next_call(self.arriving, self.pace())

    async def run_call(self, call: StepCall[JobRow]) -> None:
        """One, and in the same turn another if a full batch waits for it.

        Nothing that could be encoded meanwhile would make it fuller, and at its end there is more to encode and decode
        at once.
        """
        try:
            failure = await self.carry(call)
            goes_on = self.health.running and not failure and self.scheduler.full
            if goes_on and (another := self.next_call()):
                failure = await self.carry(call := another)
        finally:
            self.inference.turns.give_back()
        jobs = [row.job for row in call.rows]
        if isinstance(failure, TritonUnavailable):
            await self.health.lose_triton(failure, jobs)
        elif isinstance(failure, InferenceFailed) and not await self.health.is_sick(failure, jobs) and len(jobs) == 1:
            await jobs[0].fail(failure)

    async def carry(self, call: StepCall[JobRow]) -> TritonUnavailable | InferenceFailed | None:
        """The call itself, and what its rows come to → why it failed, if it did."""
        jobs = [row.job for row in call.rows]
        self.begun.append(time.monotonic())
        for job in set(jobs):
            job.note_begun(self.begun)
        try:
            with self.traces.step(jobs, call.evaluations):
                expected_s, batch = self.scheduler.expected_s(call), make_batch(call.rows, call.evaluations)
                output, seconds = await self.inference.step(batch, expected_s)
        except (TritonUnavailable, InferenceFailed) as error:
            # It answered nonsense: one row may spoil it for all, so each runs alone next.
            self.scheduler.give_back(call, alone=isinstance(error, InferenceFailed))
            return error
        self.speed.record(batch)
        self.post_process(call, output, seconds)
        return None

    def post_process(self, call: StepCall[JobRow], output: StepOutput, seconds: float) -> None:
        for job in {row.job for row in call.rows}:
            job.note_call(seconds)
        self.decoder.add(self.scheduler.finish(call, output.tokens, seconds))
        for tell in self.on_step:
            tell(call.rows, output.purity)

    async def settle(self) -> None:
        """Wait until no call is under way."""
        while self.scheduler.running:
            await self.changed.wait()
            self.changed.clear()
