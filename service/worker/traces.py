"""What a worker writes into the traces of its jobs: one span per job and stage, and per job and step call."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from service.queue.leases import Lease
from service.telemetry.tracing import Attributes, Share, Tracer

MS = 1_000_000
"""Nanoseconds."""
STEP_SPAN = "diffusion_step"
"""The name of a step call's span."""
STEP_SPANS = 128
"""Step calls of a job that are shown each; ``complete`` tells how many there were."""


class Traced(Protocol):
    """A job in a step call. ``calls``: those that carried it before; ``evaluation``: done over all its rows."""

    lease: Lease
    calls: int

    @property
    def evaluation(self) -> int: ...


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

    def step(self, jobs: Sequence[Traced], evaluations: int) -> AbstractContextManager[None]:
        """One call of ``evaluations`` (k), with its retries; ``jobs`` has the job of each row."""
        return self.tracer.during(STEP_SPAN, step_shares(jobs, evaluations))

    def decode(self, leases: Iterable[Lease]) -> AbstractContextManager[None]:
        return self.tracer.during("decode", (share(lease, {}) for lease in leases))

    def completed(self, lease: Lease, calls: int, began_ns: int) -> None:
        self.record("complete", lease, began_ns, {"vqd.step_calls": calls})

    def handed_over(self, lease: Lease, began_ns: int) -> None:
        self.record("hand over", lease, began_ns, {})

    def record(self, name: str, lease: Lease, began_ns: int, attributes: Attributes) -> None:
        """What ends now."""
        self.tracer.record(name, share(lease, attributes), began_ns, time.time_ns())


def step_shares(jobs: Sequence[Traced], evaluations: int) -> Iterator[Share]:
    """``vqd.evaluation``: evaluations done over all rows of the job before the call."""
    for job, rows in Counter(jobs).items():
        if job.calls < STEP_SPANS:
            sizes = {"vqd.rows": rows, "vqd.rows_of_call": len(jobs), "vqd.k": evaluations}
            yield share(job.lease, {**sizes, "vqd.evaluation": job.evaluation})
