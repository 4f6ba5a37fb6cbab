"""Broken connections, lost replies, a stopped Redis: real ones."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from both_sides import JobQueue, failing
from queue_support import (
    EVALUATIONS,
    MODEL,
    LossyProxy,
    checkpoint_at,
    eventually,
    make_job,
    make_result,
    opened,
    progress_event,
    settings_for,
)

from service.errors import RedisUnavailable, SetupError
from service.local.redis import RedisServer
from service.messages import Status
from service.queue import keys
from service.queue.notify import Notifier, Watch
from service.queue.scripts import CLAIM
from service.queue.submissions import Idempotency

pytestmark = pytest.mark.anyio


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[LossyProxy]:
    async with LossyProxy(redis_url) as proxy:
        yield proxy


@pytest.fixture
async def queue(proxy: LossyProxy) -> AsyncIterator[JobQueue]:
    async with opened(proxy.url) as queue:
        await queue.ping()
        yield queue


async def ready(queue: JobQueue) -> None:
    """Take once, so that later takes only read and claim."""
    assert await queue.take(MODEL, "worker", 2, 0) == []


async def test_an_enqueue_whose_reply_is_lost_makes_one_job(queue: JobQueue, proxy: LossyProxy) -> None:
    await queue.enqueue(make_job(), EVALUATIONS)  # loads the script
    for idempotency in (None, Idempotency("key", "payload")):
        job = make_job()
        proxy.lose_reply(b"EVALSHA")
        assert (await queue.enqueue(job, EVALUATIONS, idempotency))[:2] == (job.id, True)
    assert proxy.lost == 2
    assert len(await queue.take(MODEL, "worker", 20, 0)) == 3


async def test_a_claim_whose_reply_is_lost_counts_once(queue: JobQueue, proxy: LossyProxy) -> None:
    await ready(queue)
    await queue.enqueue(make_job(), EVALUATIONS)
    await queue.redis.script_load(queue.store.scripts[CLAIM].script)
    proxy.lose_reply(queue.store.scripts[CLAIM].sha.encode())
    [lease] = await queue.take(MODEL, "worker", 2, 0)
    assert (proxy.lost, lease.epoch, lease.attempts) == (1, 1, 1)
    assert await queue.renew(lease)


async def test_a_claim_that_never_hears_its_reply_is_no_lost_worker(queue: JobQueue, proxy: LossyProxy) -> None:
    await ready(queue)
    await queue.enqueue(make_job(), EVALUATIONS)
    proxy.lose_reply(queue.store.scripts[CLAIM].sha.encode(), times=3)
    with pytest.raises(RedisUnavailable):
        await queue.take(MODEL, "worker", 2, 0)
    [lease] = await queue.take(MODEL, "worker", 2, 0)
    assert (proxy.lost, lease.attempts) == (3, 1)
    assert await queue.renew(lease)


async def test_a_read_whose_reply_is_lost_is_found_by_the_next_take(queue: JobQueue, proxy: LossyProxy) -> None:
    await ready(queue)
    jobs = [make_job(), make_job()]
    for job in jobs:
        await queue.enqueue(job, EVALUATIONS)
    [held] = await queue.take(MODEL, "worker", 2, 0)
    proxy.lose_reply(keys.stream(MODEL, "interactive").encode())
    with pytest.raises(RedisUnavailable):
        await queue.take(MODEL, "worker", 10, 0)
    [lease] = await queue.take(MODEL, "worker", 10, 0)
    assert (lease.job.id, lease.attempts, lease.epoch) == (jobs[1].id, 1, 1)
    assert await queue.renew(held)


@pytest.mark.parametrize("end", ["complete", "fail", "release", "progress"])
async def test_a_write_whose_reply_is_lost_is_repeated_without_harm(
    queue: JobQueue, proxy: LossyProxy, end: str
) -> None:
    jobs = [make_job(), make_job()]
    for job in jobs:
        await queue.enqueue(job, EVALUATIONS)
    first, lease = await queue.take(MODEL, "worker", 4, 0)
    writes = {
        "complete": lambda lease: queue.complete(lease, make_result(), [b"one", b"two"]),
        "fail": lambda lease: queue.fail(lease, failing("reason")),
        "release": lambda lease: queue.release(lease, checkpoint_at(1)),
        "progress": lambda lease: queue.progress(lease, progress_event(1), checkpoint_at(1)),
    }
    await writes[end](first)  # loads the script
    proxy.lose_reply(b"EVALSHA")
    await writes[end](lease)
    assert proxy.lost == 1
    assert await queue.fenced_writes() == 0
    events = [await queue.events(job.id) for job in jobs]
    assert events[0] == events[1]
    assert await queue.redis.xlen(keys.stream(MODEL, keys.HANDOVER)) == (2 if end == "release" else 0)


async def test_scripts_survive_a_script_flush(queue: JobQueue) -> None:
    await queue.enqueue(make_job(), EVALUATIONS)
    await queue.redis.script_flush()
    await queue.enqueue(make_job(), EVALUATIONS)
    assert len(await queue.take(MODEL, "worker", 4, 0)) == 2


async def test_an_emptied_redis_gets_its_groups_again(queue: JobQueue) -> None:
    await ready(queue)
    await queue.redis.flushall()
    await queue.enqueue(make_job(), EVALUATIONS)
    with pytest.raises(RedisUnavailable):
        await queue.take(MODEL, "worker", 2, 0)
    assert len(await queue.take(MODEL, "worker", 2, 0)) == 1


@pytest.mark.parametrize("url", ["http://:secret@nowhere", "redis://:sec/ret@nowhere", "redis://:secret@nowhere:port"])
async def test_a_wrong_url_is_a_setup_error_that_shows_no_password(url: str) -> None:
    with pytest.raises(SetupError, match="VQD_REDIS_URL") as raised:
        JobQueue.connect(settings_for(url))
    assert "sec" not in str(raised.value)


async def every_call_fails(queue: JobQueue, limit_s: float) -> None:
    calls = {
        "ping": queue.ping,
        "enqueue": lambda: queue.enqueue(make_job(), EVALUATIONS),
        "view": lambda: queue.view("any"),
        "events": lambda: queue.events("any"),
        "depths": lambda: queue.depths(MODEL),
        "workers": queue.workers,
        "take": lambda: queue.take(MODEL, "worker", 2, 200),
        "recover": lambda: queue.recover(MODEL, "worker", 2),
    }
    for name, call in calls.items():
        started_s = time.monotonic()
        with pytest.raises(RedisUnavailable):
            await call()
        assert time.monotonic() - started_s < limit_s, name


async def test_a_redis_that_is_down_or_hangs_fails_every_call_in_time_and_jobs_outlive_it(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    with server:
        async with opened(server.url, redis_timeout_s=0.5) as queue:
            jobs = [make_job(), make_job()]
            for job in jobs:
                await queue.enqueue(job, EVALUATIONS)
            [lease] = await queue.take(MODEL, "worker", 2, 0)

            os.kill(server.process.pid, signal.SIGSTOP)
            try:
                await every_call_fails(queue, limit_s=1.5)
            finally:
                os.kill(server.process.pid, signal.SIGCONT)
            assert await queue.renew(lease)

            server.stop()
            await every_call_fails(queue, limit_s=1.5)
            server.start()
            assert await queue.renew(lease)
            [second] = await queue.take(MODEL, "worker", 4, 0)
            assert second.job.id == jobs[1].id


async def test_a_blocked_take_notices_that_redis_went_away(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    with server:
        async with opened(server.url, redis_timeout_s=0.5) as queue:
            waiting = asyncio.create_task(queue.take(MODEL, "worker", 2, 60_000))

            async def blocked() -> bool:
                return "xread" in [client["cmd"] for client in await queue.redis.client_list()]

            await eventually(blocked)
            server.stop()
            with pytest.raises(RedisUnavailable):
                await asyncio.wait_for(waiting, 5)


async def test_a_watcher_is_woken_by_its_job_alone_and_misses_nothing_before_its_wait(redis_url: str) -> None:
    notifier = Notifier.connect(settings_for(redis_url))
    listening = asyncio.create_task(notifier.run())
    try:
        async with opened(redis_url) as queue:
            jobs = [make_job(), make_job()]
            job_id = jobs[0].id
            with (
                notifier.watch(job_id) as watch,
                notifier.watch(job_id, only_end=True) as end,
                notifier.watch(jobs[1].id) as other,
            ):
                await asyncio.gather(watch.wait(5), end.wait(5), other.wait(5))  # the subscription wakes all
                await queue.enqueue(jobs[0], EVALUATIONS)
                await wait_quickly(watch)
                [lease] = await queue.take(MODEL, "worker", 2, 0)
                await wait_quickly(watch)
                await queue.progress(lease, progress_event(1), None)
                await wait_quickly(watch)
                assert not end.changed.is_set()
                await queue.complete(lease, make_result(), [])
                await wait_quickly(end)
                await eventually(lambda: heard(watch))  # the change comes before the wait, which must still see it
                await wait_quickly(watch)
                assert not other.changed.is_set()
                started_s = time.monotonic()
                await watch.wait(0.2)
                assert time.monotonic() - started_s > 0.19
            assert not notifier.watches
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await notifier.close()


async def heard(watch: Watch) -> bool:
    return watch.changed.is_set()


async def wait_quickly(watch: Watch) -> None:
    started_s = time.monotonic()
    await watch.wait(5)
    assert time.monotonic() - started_s < 1


async def test_the_notifier_returns_with_redis_and_wakes_everyone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer(tmp_path)
    with server:
        notifier = Notifier.connect(settings_for(server.url, redis_timeout_s=0.5))
        listening = asyncio.create_task(notifier.run())
        try:
            job = make_job()
            with notifier.watch(job.id) as watch:
                await wait_quickly(watch)
                server.stop()

                async def gave_up() -> bool:
                    return "interrupted" in caplog.text

                await eventually(gave_up)
                assert not watch.changed.is_set()
                server.start()
                await watch.wait(10)  # messages may have been lost: look again
                async with opened(server.url) as queue:
                    await queue.enqueue(job, EVALUATIONS)
                    await wait_quickly(watch)
                    assert await queue.cancel(job.id) is Status.CANCELLED
                    await wait_quickly(watch)
            assert not listening.done()
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await notifier.close()
