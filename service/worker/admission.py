"""New jobs: taken from the queue or from workers that fell silent, their prompts encoded, their rows to the stepper."""

import asyncio
import logging
from collections.abc import Sequence
from itertools import islice

from service.engine.conditions import Conditions
from service.engine.inference import Inference
from service.errors import InferenceFailed, InvalidRequest, RedisUnavailable, TritonUnavailable
from service.queue.claims import Claims
from service.settings import Settings
from service.worker.brownout import BrownOut
from service.worker.job import HeldJob, State
from service.worker.jobs import HeldJobs
from service.worker.original import read_image
from service.worker.settlement import ids_of
from service.worker.trials import Texts, Trials

log = logging.getLogger(__name__)

BATCH_FIRST_EVERY = 4
"""One take in so many looks at the batch class first, so that interactive load cannot starve it."""
BURST_LOOKS = 2
"""Looks at the queue for more before the first call of an idle worker, each only if the one before found something."""
TAKE_BLOCK_MS = 500
IDLE_S = 0.1


class Admission:
    """``lock`` is held while it reads and encodes: a drain cuts no read short."""

    def __init__(
        self,
        worker_id: str,
        claims: Claims,
        jobs: HeldJobs,
        conditions: Conditions,
        inference: Inference,
        trials: Trials,
        settings: Settings,
    ) -> None:
        self.worker_id, self.claims, self.jobs, self.conditions = worker_id, claims, jobs, conditions
        self.inference, self.trials, self.settings = inference, trials, settings
        self.stepper, self.health = trials.stepper, trials.health
        self.brownout = BrownOut(jobs, self.stepper.scheduler, inference.pace)
        self.lock = asyncio.Lock()

    @property
    def room(self) -> int:
        return self.settings.max_rows - self.jobs.rows

    @property
    def accepting(self) -> bool:
        return self.health.running and self.room > 0

    async def take(self) -> None:
        """Take jobs while there is room; blocks on the queue when idle."""
        takes = 0
        while True:
            if not self.accepting:
                await asyncio.sleep(IDLE_S)
                continue
            takes += 1
            await self.admit(batch_first=takes % BATCH_FIRST_EVERY == 0)

    async def admit(self, batch_first: bool = False) -> None:
        async with self.lock:
            if not self.accepting:
                return
            if not (first := await self.claim(TAKE_BLOCK_MS, batch_first)):
                return
            async with self.inference.turns.shared():
                # Who has come while the turn was awaited is encoded with the first, and joins the same call.
                jobs = more = await self.encode([*first, *await self.claim(block_ms=0)])
                for _ in range(BURST_LOOKS):
                    if not more or len(self.stepper.scheduler):
                        break
                    # Perhaps the first of a burst: who has come by now joins its first call, and ends with it.
                    more = await self.encode(await self.claim(block_ms=0))
                    jobs = [*jobs, *more]
                for job in jobs:
                    self.begin(job)

    async def claim(self, block_ms: int, batch_first: bool = False) -> list[HeldJob]:
        """What the queue gives, each held from now on; nothing when there is no room, or no Triton."""
        if not self.accepting:
            return []
        reserve = min(self.settings.max_batch, self.settings.max_rows // 4)
        try:
            leases = await self.claims.take(
                self.jobs.info.name, self.worker_id, self.room, block_ms, batch_first, reserve
            )
        except RedisUnavailable as error:
            await self.jobs.settlement.outage.wait(error)
            return []
        jobs = [self.jobs.claim(lease) for lease in leases]
        if not self.health.running:  # no longer: Triton was lost, or a drain began, while the queue was awaited
            await asyncio.gather(*(job.release() for job in jobs))
            return []
        return jobs

    async def encode(self, claimed: Sequence[HeldJob]) -> list[HeldJob]:
        """Encode the prompts and pictures of all together → the jobs that can go on; suspects go on by themselves."""
        every = [(job, texts) for job in claimed if (texts := await self.prepare(job)) is not None]
        prepared = [(job, texts) for job, texts in every if await self.brownout.fit(job)]
        for job, texts in prepared:
            if job.lease.suspect:
                self.trials.add(job, texts)
        return await self.encode_all([(job, texts) for job, texts in prepared if not job.lease.suspect])

    async def encode_all(self, prepared: Sequence[tuple[HeldJob, Texts]]) -> list[HeldJob]:
        """If Triton cannot encode them together, each for itself, to find out whose fault it is."""
        if not prepared:
            return []
        jobs = [job for job, _ in prepared]
        self.stepper.arriving = len(prepared)
        try:
            with self.stepper.traces.encode(job.lease for job, _ in prepared):
                states, seconds = await self.inference.encode([text for _, texts in prepared for text in texts])
                read, read_s = await self.inference.read([job.original for job in jobs if job.original is not None])
        except TritonUnavailable as error:
            await self.health.lose_triton(error, jobs)
            return []
        except InferenceFailed as error:
            if await self.health.is_sick(error, jobs):
                return []
            if len(jobs) > 1:
                return [job for one in prepared for job in await self.encode_all([one])]
            await jobs[0].fail(error)
            return []
        finally:
            self.stepper.arriving = 0
        answers, grids = iter(states), iter(read)
        for job, texts in prepared:
            conditions = self.conditions.of(job.lease.job, [*islice(answers, len(texts))])
            grid = None if job.original is None else next(grids)
            job.note_encoded(conditions, seconds + read_s, grid)
        return jobs

    async def prepare(self, job: HeldJob) -> Texts | None:
        """Its prompts as token ids, its picture as pixels; None when the job cannot be run, and has failed."""
        job.enter(State.ENCODING)
        wanted = job.lease.job
        try:
            job.make_rows()
            texts = self.conditions.texts(wanted)
            if wanted.edit and wanted.edit.image_sha256:
                job.original = read_image(job.lease.pixels.image)
        except (InvalidRequest, InferenceFailed) as error:
            await job.fail(error)
            return None
        about_picture = wanted.edit.warnings if wanted.edit else ()
        job.warnings = (*about_picture, *(warning for text in texts for warning in text.warnings))
        job.text_tokens = sum(text.size for text in texts)
        return texts

    def begin(self, job: HeldJob) -> None:
        """Give its rows to the stepper, unless it has ended meanwhile."""
        if not job.held:
            return
        job.enter(State.RUNNING)
        with ids_of(job.lease):
            fields = {"attempt": job.lease.attempts, "epoch": job.lease.epoch, "evaluation": job.evaluation}
            log.info("job begins", extra={"fields": fields})
        self.stepper.add(job.rows)
