"""The jobs that a worker holds, and everything it tells the queue about them."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from functools import partial

from service.engine.scheduler import Row, Scheduler
from service.errors import DeadlinePassed, InvalidRequest, RedisUnavailable, StaleEpoch, VqdError
from service.messages import Checkpoint, Status
from service.queue.queue import JobQueue, Lease
from service.settings import Settings
from service.telemetry.logs import ids
from service.telemetry.metrics import WorkerMetrics
from service.worker.running import RunningJob
from service.worker.traces import Traces

log = logging.getLogger(__name__)

REDIS_PAUSE_S = 0.2
COMPLAIN_S = 5.0
"""Every part of the worker meets a Redis that is away, several times a second; one line in so long is enough."""


def ids_of(lease: Lease) -> AbstractContextManager[None]:
    """Lines of this block carry the job's id and that of the request which made it."""
    return ids(job_id=lease.job.id, request_id=lease.job.request_id)


def loggable(error: VqdError) -> str:
    """What is wrong, without a word of the prompt."""
    return f"{error.field} is not valid" if isinstance(error, InvalidRequest) else str(error)


class Ledger:
    """Every write waits for Redis to come back, and takes a refusal as the end: another worker owns the job then."""

    def __init__(
        self, queue: JobQueue, scheduler: Scheduler, settings: Settings, metrics: WorkerMetrics, traces: Traces
    ) -> None:
        self.queue, self.scheduler, self.settings = queue, scheduler, settings
        self.metrics, self.traces = metrics, traces
        self.complained = float("-inf")
        self.held: dict[str, RunningJob] = {}

    @property
    def rows(self) -> int:
        return sum(len(job.rows) for job in self.held.values())

    def holds(self, job: RunningJob) -> bool:
        """Whether this very claim of the job is still here."""
        return self.held.get(job.id) is job

    def hold(self, job: RunningJob) -> None:
        self.metrics.resumes.inc(job.lease.checkpoint is not None)
        if job.id not in self.held:
            self.metrics.busy.enter()
        self.held[job.id] = job
        with ids_of(job.lease):
            fields = {"attempt": job.lease.attempts, "epoch": job.lease.epoch, "evaluation": job.evaluation}
            log.info("job begins", extra={"fields": fields})

    def drop(self, job: RunningJob) -> None:
        """Forget the job. It may have been taken again by now: only its own rows go."""
        if self.holds(job):
            del self.held[job.id]
            self.metrics.busy.leave()
        self.scheduler.remove(job.rows)

    @asynccontextmanager
    async def ending(self, job: RunningJob) -> AsyncIterator[bool]:
        """Let a report under way end, and drop the job for its last write → False: it was dropped before."""
        async with job.lock:
            ours = self.holds(job)
            if ours:
                self.drop(job)
            yield ours

    def owner(self, row: Row) -> RunningJob | None:
        """The job that the row belongs to, unless it was dropped while the row was in a call."""
        job = self.held.get(row.job_id)
        return job if job and row in job.rows else None

    async def report_all(self) -> None:
        """Progress, checkpoints, renewals, sent together; hears of cancels and of jobs that are no longer ours."""
        self.metrics.rows_in_flight.set(self.rows)
        renew_s, checkpoint_s = self.settings.lease_ms / 3000, self.settings.checkpoint_ms / 1000
        async with AsyncExitStack() as locks:
            jobs = [job for job in self.held.values() if not job.lock.locked() and job.due(renew_s)]
            for job in jobs:
                await locks.enter_async_context(job.lock)  # at once: it is free
            checkpoints = [job.due_checkpoint(checkpoint_s) for job in jobs]
            reports = [(job.lease, job.event(), saved) for job, saved in zip(jobs, checkpoints, strict=True)]
            try:
                outcomes = await self.queue.progress_all(reports) if reports else []
            except RedisUnavailable as error:
                await self.wait_for_redis(error)
                return
            for job, saved, outcome in zip(jobs, checkpoints, outcomes, strict=True):
                with ids_of(job.lease):
                    await self.heed(job, saved, outcome)

    async def heed(self, job: RunningJob, saved: Checkpoint | None, outcome: bool | StaleEpoch) -> None:
        """What the queue said to a report: it stands and the job goes on, or is to end, or is ours no longer."""
        if isinstance(outcome, StaleEpoch):
            self.note_fenced(outcome)
            self.drop(job)
            return
        job.note_reported(saved)
        self.metrics.checkpoints.inc(saved is not None)
        if not outcome:
            self.drop(job)
            await self.settle(job.lease, partial(self.queue.cancelled, job.lease), "cancelled")

    async def complete(self, job: RunningJob) -> None:
        """Store the result of a job whose pictures are all there."""
        async with self.ending(job) as ours:
            if not ours:
                return
            result, files = job.result(), [job.files[row.image] for row in job.rows]
            began_ns = time.time_ns()
            if await self.settle(job.lease, partial(self.queue.complete, job.lease, result, files), "succeeded"):
                self.metrics.images.inc(len(files))
                self.metrics.job_seconds.observe(result.timings.total_s)
                self.metrics.evaluations_repeated.inc(result.evaluations_repeated)
                self.traces.completed(job, began_ns)

    async def fail_held(self, job: RunningJob, error: VqdError) -> None:
        async with self.ending(job) as ours:
            if ours:
                await self.fail(job.lease, error)

    async def fail(self, lease: Lease, error: VqdError) -> None:
        with ids_of(lease):
            log.warning("job fails: %s", loggable(error))
        await self.settle(lease, partial(self.queue.fail, lease, str(error)), "failed")

    async def release(self, lease: Lease, checkpoint: Checkpoint | None) -> None:
        """Give a job back for any worker to take at once."""
        began_ns = time.time_ns()
        if await self.settle(lease, partial(self.queue.release, lease, checkpoint)):
            self.metrics.handovers.inc()
            self.traces.handed_over(lease, began_ns)

    async def release_all(self) -> None:
        """Give every job back, each with a checkpoint of now."""
        for job in list(self.held.values()):
            async with self.ending(job) as ours:
                if ours:
                    await self.release(job.lease, job.checkpoint())

    async def settle(self, lease: Lease, write: Callable[[], Awaitable[None]], outcome: str | None = None) -> bool:
        """Write a job's end here until Redis has taken it → False when the job was no longer ours."""
        with ids_of(lease), self.metrics.busy:
            while True:
                try:
                    await write()
                except StaleEpoch as error:
                    self.note_fenced(error)
                    return False
                except RedisUnavailable as error:
                    await self.wait_for_redis(error)
                else:
                    if outcome:
                        self.metrics.jobs.labels(outcome).inc()
                    log.info("job %s", outcome or "handed over")
                    return True

    def note_fenced(self, error: StaleEpoch) -> None:
        log.warning("%s", error)
        if isinstance(error, DeadlinePassed):
            self.metrics.jobs.labels(Status.FAILED).inc()
        else:
            self.metrics.fenced_writes.inc()

    async def wait_for_redis(self, error: RedisUnavailable) -> None:
        if time.monotonic() - self.complained > COMPLAIN_S:
            self.complained = time.monotonic()
            log.warning("waiting: %s", error)
        self.metrics.redis_errors.inc()
        await asyncio.sleep(REDIS_PAUSE_S)
