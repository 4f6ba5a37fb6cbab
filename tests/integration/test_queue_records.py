"""What a job's record keeps and loses in the course of its life, and claims that come at once: on a real Redis."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from both_sides import JobQueue, failing
from queue_support import (
    EVALUATIONS,
    MODEL,
    checkpoint_at,
    eventually,
    idle_ms,
    make_job,
    make_result,
    opened,
    progress_event,
)

from service.queue import keys
from service.queue.leases import Lease

pytestmark = pytest.mark.anyio

LEASE_MS = 100


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[JobQueue]:
    """The process whose worker is lost."""
    async with opened(redis_url, lease_ms=LEASE_MS) as queue:
        yield queue


async def lose(queue: JobQueue, count: int) -> list[Lease]:
    """Jobs whose worker is silent for more than a lease."""
    for _ in range(count):
        await queue.enqueue(make_job(), EVALUATIONS)
    lost = await queue.take(MODEL, "lost", 2 * count, 0)

    async def silent() -> bool:
        return min([await idle_ms(queue, lease.stream, lease.entry_id) for lease in lost]) > LEASE_MS

    await eventually(silent)
    return lost


async def test_a_job_began_when_its_first_worker_took_it(queue: JobQueue, redis_url: str) -> None:
    [lease] = await lose(queue, 1)
    began_ms = (await queue.view(lease.job.id)).started_ms
    async with opened(redis_url, lease_ms=LEASE_MS) as rescuer:
        assert len(await rescuer.recover(MODEL, "rescuer", 1)) == 1
        assert (await rescuer.view(lease.job.id)).started_ms == began_ms


@pytest.mark.parametrize("end", ["complete", "fail", "cancelled"])
async def test_the_checkpoint_of_a_job_that_ended_is_gone(queue: JobQueue, end: str) -> None:
    """It may be the largest thing in the record, and nobody reads it any more."""
    await queue.enqueue(make_job(), EVALUATIONS)
    [lease] = await queue.take(MODEL, "worker", 1, 0)
    await queue.progress(lease, progress_event(2), checkpoint_at(2))
    assert await queue.redis.hexists(keys.job(lease.job.id), "checkpoint")
    if end == "complete":
        await queue.complete(lease, make_result(), [b"one", b"two"])
    else:
        await (queue.fail(lease, failing("reason")) if end == "fail" else queue.cancelled(lease))
    assert not await queue.redis.hexists(keys.job(lease.job.id), "checkpoint")


@pytest.mark.parametrize("turns", range(0, 30, 3))
async def test_a_worker_that_takes_and_recovers_at_once_gets_each_job_once(
    queue: JobQueue, redis_url: str, turns: int
) -> None:
    """Its first take looks for entries in its own name, into which recovery has just put some."""
    lost = await lose(queue, 4)
    async with opened(redis_url, lease_ms=LEASE_MS) as rescuer:
        recovering = asyncio.create_task(rescuer.recover(MODEL, "rescuer", 8))
        for _ in range(turns):
            await asyncio.sleep(0)
        leases = await rescuer.take(MODEL, "rescuer", 8, 0) + await recovering
        assert sorted(lease.job.id for lease in leases) == sorted(lease.job.id for lease in lost)
        assert all([await rescuer.renew(lease) for lease in leases])
