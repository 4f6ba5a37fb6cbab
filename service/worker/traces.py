"""What a worker writes into the traces of its jobs: one span per job and stage, and per job and step call."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

from service.engine.scheduler import Call
from service.queue.queue import Lease
from service.telemetry.tracing import Attributes, Share, Tracer
from service.worker.running import RunningJob

MS = 1_000_000
"""Nanoseconds."""
STEP_SPANS = 128
"""Step calls of a job that are shown each; ``complete`` tells how many there were."""


def share(lease: Lease, attributes: Attributes) -> Share:
    """``vqd.epoch`` tells the spans of one worker from those of the next."""
    return lease.job, {"vqd.job_id": lease.job.id, "vqd.epoch": lease.epoch, **attributes}


class Traces:
    """``encode``, ``step`` and ``decode`` are held around the work; the others tell of what is over."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer

    def taken(self, lease: Lease) -> None:
        """The wait in the queue, in Redis's time; only the first claim knows since when."""
        if lease.epoch == 1:
            waited = share(lease, {"vqd.priority": lease.job.priority.value})
            self.tracer.record("queue wait", waited, lease.job.created_ms * MS, lease.claimed_ms * MS)

    def encode(self, leases: Iterable[Lease]) -> AbstractContextManager[None]:
        """The text encoder, with the wait for a turn."""
        return self.tracer.during("encode", (share(lease, {"vqd.attempt": lease.attempts}) for lease in leases))

    def step(self, call: Call, jobs: Sequence[RunningJob]) -> AbstractContextManager[None]:
        """One call, with its retries; ``jobs[i]`` is the job of ``call.rows[i]``."""
        return self.tracer.during("diffusion_step", step_shares(call, jobs))

    def decode(self, jobs: Iterable[RunningJob]) -> AbstractContextManager[None]:
        return self.tracer.during("decode", (share(job.lease, {}) for job in jobs))

    def completed(self, job: RunningJob, began_ns: int) -> None:
        self.record("complete", job.lease, began_ns, {"vqd.step_calls": job.calls})

    def handed_over(self, lease: Lease, began_ns: int) -> None:
        self.record("hand over", lease, began_ns, {})

    def record(self, name: str, lease: Lease, began_ns: int, attributes: Attributes) -> None:
        """What ends now."""
        self.tracer.record(name, share(lease, attributes), began_ns, time.time_ns())


def step_shares(call: Call, jobs: Sequence[RunningJob]) -> Iterator[Share]:
    """``vqd.evaluation``: evaluations done over all rows of the job before the call."""
    rows = Counter(job.id for job in jobs)
    for job in {job.id: job for job in jobs}.values():
        if job.calls < STEP_SPANS:
            sizes = {"vqd.rows": rows[job.id], "vqd.rows_of_call": len(call.rows), "vqd.k": call.evaluations}
            yield share(job.lease, {**sizes, "vqd.evaluation": job.evaluation})
