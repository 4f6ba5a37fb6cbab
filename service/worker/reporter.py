"""Progress, checkpoints and renewals of all held jobs, in one trip to Redis; it hears of cancels and lost jobs."""

import asyncio
from contextlib import AsyncExitStack

from service.errors import RedisUnavailable, StaleEpoch
from service.messages import Checkpoint
from service.settings import Settings
from service.worker.job import HeldJob
from service.worker.jobs import HeldJobs
from service.worker.settlement import ids_of

REPORT_S = 0.1


class Reporter:
    """A job is renewed from its claim on, whatever it waits for."""

    def __init__(self, jobs: HeldJobs, settings: Settings) -> None:
        self.jobs, self.settlement, self.metrics = jobs, jobs.settlement, jobs.metrics
        self.renew_s, self.checkpoint_s = settings.lease_ms / 3000, settings.checkpoint_ms / 1000

    async def run(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            await self.report()

    async def report(self) -> None:
        """Tell the queue what is due, once."""
        self.metrics.rows_in_flight.set(self.jobs.rows)
        async with AsyncExitStack() as locks:
            due = [job for job in self.jobs if not job.lock.locked() and job.due(self.renew_s)]
            for job in due:
                await locks.enter_async_context(job.lock)  # at once: it is free
            checkpoints = [job.due_checkpoint(self.checkpoint_s) for job in due]
            reports = [(job.lease, job.event(), saved) for job, saved in zip(due, checkpoints, strict=True)]
            try:
                outcomes = await self.settlement.leases.progress_all(reports) if reports else []
            except RedisUnavailable as error:
                await self.settlement.outage.wait(error)
                return
            answers = zip(due, checkpoints, outcomes, strict=True)
            cancelled = [job for job, saved, outcome in answers if not self.goes_on(job, saved, outcome)]
        await asyncio.gather(*(job.cancel() for job in cancelled))

    def goes_on(self, job: HeldJob, saved: Checkpoint | None, outcome: bool | StaleEpoch) -> bool:
        """Heed what the queue said to a report → False when the client has asked to cancel."""
        if isinstance(outcome, StaleEpoch):
            with ids_of(job.lease):
                job.lose(outcome)
            return True
        job.note_reported(saved)
        self.metrics.checkpoints.inc(saved is not None)
        return outcome
