"""The registry of the jobs that this worker holds, each from its claim to its end."""

import asyncio
from collections.abc import Collection, Iterator

from service.queue.leases import Lease
from service.serving import ModelInfo
from service.worker.job import HeldJob
from service.worker.settlement import Settlement


class HeldJobs:
    """Iterates over the jobs that may still be worked on."""

    def __init__(self, info: ModelInfo, settlement: Settlement) -> None:
        self.info, self.settlement, self.metrics = info, settlement, settlement.metrics
        self.all: dict[HeldJob, None] = {}

    def __iter__(self) -> Iterator[HeldJob]:
        return iter([job for job in self.all if job.held])

    @property
    def rows(self) -> int:
        return sum(job.images for job in self)

    def claim(self, lease: Lease) -> HeldJob:
        """Enter a job that was just claimed."""
        self.note_claimed(lease)
        job = HeldJob(lease, self.info, self.settlement, self.forget)
        self.all[job] = None
        self.metrics.busy.enter()
        return job

    def note_claimed(self, lease: Lease) -> None:
        if lease.epoch == 1:  # a job that comes from another worker has waited before
            self.metrics.queue_wait_seconds.observe((lease.claimed_ms - lease.job.created_ms) / 1000)
        self.metrics.resumes.inc(lease.checkpoint is not None)
        self.settlement.traces.taken(lease)

    def forget(self, job: HeldJob) -> None:
        del self.all[job]
        self.metrics.busy.leave()

    @property
    def in_the_making(self) -> list[HeldJob]:
        """Those that need Triton still: not those whose pictures are on the way to where they are kept."""
        return [job for job in self.all if job.in_the_making]

    async def release_all(self) -> None:
        """Give every job back, for other workers to go on with."""
        await asyncio.gather(*(job.release() for job in self))

    async def release_unmade(self, blamed: Collection[HeldJob]) -> None:
        """The same of those that cannot go on here without Triton; what is made comes to its end."""
        await asyncio.gather(*(job.release(job in blamed) for job in self.in_the_making))
