"""The job queue in Redis: at-least-once execution, exactly one recorded result, nothing accepted is lost.

A job is a hash; what is to be done is an entry in one of its model's streams, which stays until the job has ended:

    enqueue ─▶ stream ─take─▶ lease ─renew, progress─▶ complete | fail | cancelled
                 ▲              └─────────release────────┐  (a stopping worker)
                 └── recover: silent for lease_ms        └▶ hand-over stream ─take─▶ lease …

Every change of state is one script that checks the lease's epoch, and every script may be repeated.
"""

from typing import Self

from service.queue.connection import build_client
from service.queue.leases import Lease, WorkerSide
from service.queue.submissions import GatewaySide, Idempotency
from service.settings import Settings

__all__ = ["Idempotency", "JobQueue", "Lease"]


class JobQueue(GatewaySide, WorkerSide):
    """Both sides; one per process, and one task at a time per lease."""

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """A queue with a client of its own. Connects at the first call."""
        return cls(build_client(settings), settings)
