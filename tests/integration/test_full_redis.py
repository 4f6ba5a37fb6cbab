"""Promise 10: a full Redis refuses new jobs, and everything else goes on, so that there is room again."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from both_sides import JobQueue, failing
from queue_support import (
    EVALUATIONS,
    MODEL,
    checkpoint_at,
    make_job,
    make_result,
    opened,
    progress_event,
    settings_for,
    worker_info,
)
from redis.exceptions import OutOfMemoryError

from service.errors import QueueFull
from service.local.redis import RedisServer
from service.messages import Status
from service.queue.leases import Lease
from service.queue.store import Store

pytestmark = pytest.mark.anyio


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[JobQueue]:
    with RedisServer(tmp_path / "redis") as server:
        async with opened(server.url) as queue:
            yield queue


async def fill(queue: JobQueue, share: float) -> None:
    """Let what is in use now be this share of all that may be."""
    used = (await queue.redis.info("memory"))["used_memory"]
    await queue.redis.config_set("maxmemory", int(used / share))


async def take(queue: JobQueue, count: int) -> list[Lease]:
    for _ in range(count):
        await queue.enqueue(make_job(), EVALUATIONS)
    return await queue.take(MODEL, "worker", 2 * count, 0)


async def test_at_four_fifths_new_jobs_are_refused_and_say_why(queue: JobQueue) -> None:
    await fill(queue, 0.75)
    await queue.enqueue(make_job(), EVALUATIONS)
    await fill(queue, 0.85)
    with pytest.raises(QueueFull, match="Redis is nearly full"):
        await queue.enqueue(make_job(), EVALUATIONS)
    await queue.redis.config_set("maxmemory", 0)
    await queue.enqueue(make_job(), EVALUATIONS)


async def test_over_the_limit_all_that_is_accepted_can_report_and_end(queue: JobQueue) -> None:
    done, failed, cancelled, released, waiting = await take(queue, 5)
    await queue.release(waiting, None)
    await fill(queue, 1.1)
    with pytest.raises(OutOfMemoryError):
        await queue.redis.set("anything", "x")
    assert await queue.progress(done, progress_event(1), checkpoint_at(1))
    await queue.complete(done, make_result(), [b"a" * 10_000, b"b" * 10_000])
    await queue.fail(failed, failing("no use"))
    assert await queue.cancel(cancelled.job.id) is Status.RUNNING
    assert not await queue.renew(cancelled)
    await queue.cancelled(cancelled)
    await queue.release(released, checkpoint_at(1))
    assert await queue.cancel(waiting.job.id) is Status.CANCELLED
    [again] = await queue.take(MODEL, "other", 2, 0)
    assert again.job.id == released.job.id
    await queue.register(worker_info("worker"), 1000)
    assert [worker.id for worker in await queue.workers()] == ["worker"]
    ends = [(await queue.view(lease.job.id)).status for lease in (done, failed, cancelled)]
    assert ends == [Status.SUCCEEDED, Status.FAILED, Status.CANCELLED]


async def test_a_dead_workers_jobs_are_recovered_over_the_limit(queue: JobQueue) -> None:
    leases = await take(queue, 2)
    await fill(queue, 1.1)
    store = Store.connect(settings_for(queue.settings.redis_url, lease_ms=100))
    rescuer = JobQueue(store)
    try:
        found: list[Lease] = []
        while len(found) < len(leases):
            found += await rescuer.recover(MODEL, "rescuer", 4)
        for lease in found:
            await rescuer.complete(lease, make_result(), [b"a", b"b"])
    finally:
        await store.close()


async def test_what_ends_makes_room(queue: JobQueue) -> None:
    queue.store.settings = queue.settings.model_copy(update={"result_ttl_s": 1})
    for lease in await take(queue, 20):
        await queue.complete(lease, make_result(), [b"a" * 50_000, b"b" * 50_000])
    await fill(queue, 0.9)
    with pytest.raises(QueueFull):
        await queue.enqueue(make_job(), EVALUATIONS)
    while True:
        try:
            await queue.enqueue(make_job(), EVALUATIONS)
        except QueueFull:
            continue
        break
