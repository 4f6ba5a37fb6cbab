"""A worker's room for rows: what a read and a recovery give it of more than fits. On a real Redis."""

from collections.abc import AsyncIterator

import pytest
from both_sides import JobQueue
from queue_support import EVALUATIONS, MODEL, eventually, idle_ms, make_job, opened

from service.messages import Priority
from service.queue.leases import Lease

pytestmark = pytest.mark.anyio

LEASE_MS = 100


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[JobQueue]:
    async with opened(redis_url, lease_ms=LEASE_MS) as queue:
        yield queue


async def start(queue: JobQueue, worker_id: str) -> Lease:
    """A job of two rows, taken."""
    await queue.enqueue(make_job(), EVALUATIONS)
    [lease] = await queue.take(MODEL, worker_id, 2, 0)
    return lease


async def test_who_was_given_a_job_gets_beside_it_only_what_fits(queue: JobQueue) -> None:
    interactive, batch = make_job(), make_job(Priority.BATCH)
    for job in (interactive, batch):
        await queue.enqueue(job, EVALUATIONS)
    for job in (interactive, batch):
        [lease] = await queue.take(MODEL, "worker", 3, 0)
        assert lease.job.id == job.id
        await queue.cancelled(lease)


async def test_recovery_looks_behind_what_the_worker_itself_was_slow_to_renew(queue: JobQueue, redis_url: str) -> None:
    for _ in range(3):
        await start(queue, "worker")
    async with opened(redis_url, lease_ms=LEASE_MS) as gone:
        lost = await start(gone, "gone")

    async def silent() -> bool:
        return await idle_ms(queue, lost.stream, lost.entry_id) > LEASE_MS

    await eventually(silent)
    assert [lease.job.id for lease in await queue.recover(MODEL, "worker", 2)] == [lost.job.id]
