"""A gateway that stops: what is under way may end, and what does not is another's at once."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
import redis
from both_sides import JobQueue
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    until,
)
from prometheus_client import CollectorRegistry
from queue_support import EVALUATIONS, eventually, make_job, opened
from receiver import Receiver

from service.gateway.webhooks.post import Post
from service.gateway.webhooks.postman import Postman
from service.gateway.webhooks.targets import Targets
from service.queue import keys
from service.queue.webhooks import Deliveries
from service.settings import Settings
from service.telemetry.metrics import GatewayMetrics

WEBHOOKS = {
    **{"webhook_secret": "whsec_" + "c2VjcmV0" * 4, "webhook_http": True, "webhook_hosts": "localhost"},
    **{"webhook_retry_s": 0.05, "webhook_timeout_s": 30.0},
}


@pytest.fixture
def held() -> Iterator[tuple[Receiver, threading.Event]]:
    """A receiver, and what lets it answer its first message."""
    free = threading.Event()
    with Receiver(lambda number: (200, {}) if number or free.wait(20) else (500, {})) as receiver:
        yield receiver, free
        free.set()


def test_what_is_under_way_may_end_and_nothing_else_is_begun(
    settings: Settings, held: tuple[Receiver, threading.Event]
) -> None:
    receiver, free = held
    sending = RunningGateway(settings.model_copy(update=WEBHOOKS))
    worker = TinyWorker(settings)
    with redis.Redis.from_url(settings.redis_url) as store:
        first = sending.start(webhook_url=receiver.url)
        until(lambda: receiver.got)
        worker.hold.set()
        later = sending.start(webhook_url=receiver.url)
        until(lambda: later in worker.taken)
        sending.server.should_exit = True
        until(sending.gateway.stopping.is_set)
        worker.hold.clear()
        until(lambda: worker.ended.get(later))
        free.set()
        sending.close()
        worker.close()
        assert [got.id for got in receiver.got] == [f"msg_{first}"]
        assert store.zrange(keys.WEBHOOKS, 0, -1) == [later.encode()]
        assert not store.exists(keys.webhook(first)), "it is over, and not sent again"


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[JobQueue]:
    async with opened(redis_url) as queue:
        yield queue


@pytest.mark.anyio
async def test_what_does_not_end_in_time_is_sent_by_another_at_once(
    queue: JobQueue, redis_url: str, held: tuple[Receiver, threading.Event]
) -> None:
    """And not when its lease has run out, which is after a minute here."""
    receiver, _ = held
    job = make_job().model_copy(update={"webhook_url": receiver.url})
    await queue.enqueue(job, EVALUATIONS)
    await queue.cancel(job.id)

    async def times(count: int) -> bool:
        return len(receiver.got) == count

    settings = Settings(redis_url=redis_url, **WEBHOOKS)
    for number in (1, 2):
        stopping = asyncio.Event()
        post, metrics = Post(settings, Targets(settings)), GatewayMetrics(CollectorRegistry())
        postman = Postman(Deliveries(queue.store), post, metrics, settings, stopping, stop_s=0.1)
        running = asyncio.create_task(postman.run())
        await eventually(lambda number=number: times(number))
        stopping.set()
        await asyncio.wait_for(running, 5)
    assert {got.id for got in receiver.got} == {f"msg_{job.id}"}


@pytest.mark.anyio
async def test_one_that_is_told_to_go_gives_back_too(
    queue: JobQueue, redis_url: str, held: tuple[Receiver, threading.Event]
) -> None:
    receiver, _ = held
    job = make_job().model_copy(update={"webhook_url": receiver.url})
    await queue.enqueue(job, EVALUATIONS)
    await queue.cancel(job.id)
    settings = Settings(redis_url=redis_url, **WEBHOOKS)
    deliveries, post = Deliveries(queue.store), Post(settings, Targets(settings))
    metrics = GatewayMetrics(CollectorRegistry())
    running = asyncio.create_task(Postman(deliveries, post, metrics, settings, asyncio.Event(), 60.0).run())

    async def taken() -> bool:
        return bool(receiver.got)

    await eventually(taken)
    running.cancel()
    await asyncio.wait([running])
    again, _ = await deliveries.claim(60_000)
    assert again
    assert (again.job_id, again.attempt) == (job.id, 2)
