"""How a job's last word gets to the queue: until Redis has taken it, or refused it."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager

from service.errors import DeadlinePassed, InvalidRequest, RedisUnavailable, StaleEpoch, VqdError
from service.messages import Status
from service.queue.leases import Lease, Leases
from service.telemetry.logs import ids
from service.telemetry.metrics import WorkerMetrics
from service.worker.outage import RedisOutage
from service.worker.traces import Traces

log = logging.getLogger(__name__)


def ids_of(lease: Lease) -> AbstractContextManager[None]:
    """Lines of this block carry the job's id and that of the request which made it."""
    return ids(job_id=lease.job.id, request_id=lease.job.request_id)


def loggable(error: VqdError) -> str:
    """What is wrong, without a word of the prompt."""
    return f"{error.field} is not valid" if isinstance(error, InvalidRequest) else str(error)


class Settlement:
    """What every job needs for its end. A refusal is taken as the end: another worker owns the job then."""

    def __init__(self, leases: Leases, metrics: WorkerMetrics, traces: Traces, outage: RedisOutage) -> None:
        self.leases, self.metrics, self.traces, self.outage = leases, metrics, traces, outage

    async def write(self, write: Callable[[], Awaitable[None]], outcome: Status | None) -> bool:
        """Repeat ``write`` until Redis answers → False when the job was no longer ours. No outcome: handed over."""
        while True:
            try:
                await write()
            except StaleEpoch as error:
                self.note_refused(error)
                return False
            except RedisUnavailable as error:
                await self.outage.wait(error)
            else:
                if outcome:
                    self.metrics.jobs.labels(outcome).inc()
                log.info("job %s", outcome or "handed over")
                return True

    def note_refused(self, error: StaleEpoch) -> None:
        log.warning("%s", error)
        if isinstance(error, DeadlinePassed):
            self.metrics.jobs.labels(Status.FAILED).inc()
        else:
            self.metrics.fenced_writes.inc()
