"""Suspect jobs, one at a time: a worker or a Triton was lost with each, and nothing else runs until it moves forward.

A job that is lost again here has only itself to blame; one that moves forward goes on among the others.
"""

import asyncio
import logging
from collections import deque

from service.engine.batch import make_batch
from service.engine.conditions import Conditions
from service.engine.inference import Inference
from service.engine.prompts import Tokenised
from service.engine.turns import Turns
from service.errors import InferenceFailed, RedisUnavailable, StaleEpoch, TritonUnavailable
from service.worker.decoder import Decoder
from service.worker.job import HeldJob, State
from service.worker.settlement import ids_of
from service.worker.stepper import Stepper

log = logging.getLogger(__name__)

Texts = tuple[Tokenised, ...]
"""What the text encoder is asked for: the prompt, and what guidance leads away from."""


class Trials:
    """Holds every turn of ``stepper`` while a trial lasts, and calls Triton with a turn of its own."""

    def __init__(self, stepper: Stepper, conditions: Conditions) -> None:
        self.stepper, self.health, self.conditions = stepper, stepper.health, conditions
        others = stepper.inference
        self.inference = Inference(others.triton, Turns(1), others.metrics, others.max_batch, others.pace)
        self.decoder = Decoder(self.inference, self.health, stepper.traces, stepper.decoder.uploads)
        self.waiting: deque[tuple[HeldJob, Texts]] = deque()
        self.arrived = asyncio.Event()
        self.health.on_ready.append(self.arrived.set)

    def add(self, job: HeldJob, texts: Texts) -> None:
        self.waiting.append((job, texts))
        self.arrived.set()

    async def run(self) -> None:
        while True:
            await self.arrived.wait()
            self.arrived.clear()
            while self.waiting and self.health.running:
                job, texts = self.waiting.popleft()
                if job.held:
                    async with self.stepper.inference.turns.all():
                        await self.try_alone(job, texts)

    async def try_alone(self, job: HeldJob, texts: Texts) -> None:
        settlement = job.settlement
        try:
            with ids_of(job.lease):
                log.info("job runs alone for a while: a worker or Triton was lost with it")
            await settlement.leases.begin_trial(job.lease)
            await self.advance(job, texts)
            await settlement.leases.progress(job.lease, job.event(), None)
        except StaleEpoch as error:
            if job.held:
                job.lose(error)
        except RedisUnavailable as error:
            await settlement.outage.wait(error)
            if job.in_the_making:  # and not at its end already
                self.add(job, texts)
        except TritonUnavailable as error:
            await self.health.lose_triton(error, [job])
        except InferenceFailed as error:
            if not await self.health.is_sick(error, [job]):
                await job.fail(error)
        else:
            if job.state is State.RUNNING:  # and not at its end
                self.stepper.add(job.rows)

    async def advance(self, job: HeldJob, texts: Texts) -> None:
        """To where the job has never been; to its end, if that is where it was lost."""
        if job.state < State.RUNNING:
            states, seconds = await self.inference.encode(texts)
            read, read_s = await self.inference.read([] if job.original is None else [job.original])
            job.note_encoded(self.conditions.of(job.lease.job, states), seconds + read_s, next(iter(read), None))
            job.enter(State.RUNNING)
        size = self.inference.max_batch
        while job.held and job.evaluation <= job.lease.evaluation and (left := [r for r in job.rows if r.remaining]):
            behind = -(-(job.lease.evaluation + 1 - job.evaluation) // len(left))
            for part in (left[i : i + size] for i in range(0, len(left), size)):
                # What was lost is repeated in calls as long as any other's, and not one evaluation at a time.
                evaluations = min(behind, self.stepper.scheduler.choose_evaluations(part, waiting=0))
                job.note_begun(())
                output, seconds = await self.inference.step(make_batch(part, evaluations))
                for row, grid in zip(part, output.tokens, strict=True):
                    row.advance(grid, evaluations)
                job.note_call(seconds)
        if job.held and job.evaluation <= job.lease.evaluation:
            job.enter(State.DECODING)
            for part in (job.rows[i : i + size] for i in range(0, len(job.rows), size)):
                await self.decoder.decode(part)
