"""A worker's room for rows: what a read and a recovery give it of more than fits. On a real Redis."""

import asyncio
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


async def run_out(queue: JobQueue, lease: Lease) -> None:
    async def silent() -> bool:
        return await idle_ms(queue, lease.stream, lease.entry_id) > LEASE_MS

    await eventually(silent)


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

    await run_out(queue, lost)
    assert [lease.job.id for lease in await queue.recover(MODEL, "worker", 2)] == [lost.job.id]


@pytest.mark.parametrize("room", [1, 3])
async def test_recovery_gives_one_job_whatever_its_size_and_another_only_if_it_fits(
    queue: JobQueue, redis_url: str, room: int
) -> None:
    async with opened(redis_url, lease_ms=LEASE_MS) as gone:
        first, last = [await start(gone, "gone") for _ in range(2)]
    await run_out(queue, last)
    assert [lease.job.id for lease in await queue.recover(MODEL, "worker", room)] == [first.job.id]


async def test_who_has_too_little_room_is_not_kept_waiting_for_newer_jobs(queue: JobQueue) -> None:
    """It may have more in a moment."""
    await start(queue, "worker")
    await queue.enqueue(make_job(), EVALUATIONS)
    assert await asyncio.wait_for(queue.take(MODEL, "worker", 1, block_ms=60_000), 5) == []


@pytest.mark.parametrize(("priority", "taken"), [(Priority.INTERACTIVE, 2), (Priority.BATCH, 1)])
async def test_only_batch_jobs_leave_the_reserve_free(queue: JobQueue, priority: Priority, taken: int) -> None:
    for _ in range(2):
        await queue.enqueue(make_job(priority), EVALUATIONS)
    assert len(await queue.take(MODEL, "worker", 4, 0, reserve=2)) == taken


async def test_a_worker_that_only_waits_looks_for_lost_jobs_at_every_scan(redis_url: str) -> None:
    """Not only at its first look."""
    options = {"lease_ms": LEASE_MS, "scan_ms": 50}
    async with opened(redis_url, **options) as gone, opened(redis_url, **options) as waiting:
        assert await waiting.take(MODEL, "waiting", 2, 0) == []
        lost = await start(gone, "gone")
        [found] = await waiting.take(MODEL, "waiting", 2, block_ms=5000)
        assert found.job.id == lost.job.id
