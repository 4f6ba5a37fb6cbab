"""Finished pictures on their way to S3 storage, and then the end of their jobs; without storage that end at once.

Each job is a task of its own, so that a slow storage holds up neither the decoder nor another job. Meanwhile its lease
is renewed as before. What the storage does not take goes to Redis with the result: nothing is lost for it.
"""

import asyncio
import logging
import time
from collections.abc import Iterable

from service.errors import StorageUnavailable
from service.messages import Stored
from service.provenance.names import disposition
from service.provenance.request import request_of
from service.storage import Bucket
from service.telemetry.metrics import WorkerMetrics
from service.worker.job import HeldJob, JobRow, State
from service.worker.settlement import ids_of

log = logging.getLogger(__name__)

AWAY_S = 10.0
"""So long after a failure nothing is tried, so that a storage that is down makes no job late but the first ones."""


class Uploads:
    def __init__(self, metrics: WorkerMetrics, bucket: Bucket | None = None) -> None:
        self.metrics, self.bucket = metrics, bucket
        self.finished: asyncio.Queue[HeldJob] = asyncio.Queue()
        self.away_until_s = float("-inf")

    async def take(self, jobs: Iterable[HeldJob]) -> None:
        """Jobs that have all their pictures, or that have ended meanwhile."""
        if self.bucket is None:
            await asyncio.gather(*(job.complete() for job in jobs))
            return
        for job in jobs:
            if job.held:
                job.enter(State.STORING)
                self.finished.put_nowait(job)

    async def settle(self) -> None:
        """Wait until no job is under way."""
        await self.finished.join()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self.end(await self.finished.get()), name="worker upload")

    async def end(self, job: HeldJob) -> None:
        try:
            with ids_of(job.lease):
                await asyncio.gather(*(self.store(job, place, row) for place, row in enumerate(job.rows)))
            await job.complete()
        finally:
            self.finished.task_done()

    async def store(self, job: HeldJob, place: int, row: JobRow) -> None:
        """One picture, which the job keeps for Redis if it cannot be stored."""
        assert self.bucket is not None
        began_s = time.monotonic()
        if began_s < self.away_until_s:
            self.metrics.storage_errors.inc()
            return
        file, key = job.files[row.image], key_of(self.bucket, job, place)
        # Half of the time that it has: a picture in Redis is better than one that is too late.
        limit_s = min(self.bucket.limit_s, job.left_s / 2)
        try:
            await self.bucket.put(key, file, headers_of(job, place), limit_s)
        except StorageUnavailable as error:
            self.metrics.storage_errors.inc()
            if limit_s == self.bucket.limit_s:
                self.note_away(error)
        else:
            job.stored[row.image] = Stored(key=key, size=len(file))
            self.metrics.storage_seconds.observe(time.monotonic() - began_s)

    def note_away(self, error: StorageUnavailable) -> None:
        now_s = time.monotonic()
        if now_s >= self.away_until_s:  # others that failed with it say the same
            log.error("pictures go to Redis for the next %g s: %s", AWAY_S, error)
        self.away_until_s = now_s + AWAY_S


def key_of(bucket: Bucket, job: HeldJob, place: int) -> str:
    """By the claim, so that no other worker, nor this one after another claim, writes the same object."""
    return f"{bucket.prefix}{job.id}/{job.lease.epoch}/{place}.{job.lease.job.parameters.format}"


def headers_of(job: HeldJob, place: int) -> dict[str, str]:
    """As the gateway answers the picture; not the name, which says the prompt, of a file that is to say nothing."""
    wanted = job.lease.job
    headers = {"Content-Type": wanted.parameters.format.media_type}
    return headers | {"Content-Disposition": disposition(request_of(wanted, place))} if wanted.metadata else headers
