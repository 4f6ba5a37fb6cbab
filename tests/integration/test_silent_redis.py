"""Promise 11: a Redis that hangs. Clients are told so in time, and no job is left of which nobody knows."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from gateway_harness import MODEL, RunningGateway, TinyWorker, until
from queue_support import EVALUATIONS, make_job, settings_for
from test_gateway_operations import (  # noqa: F401  the last two are fixtures
    ask_many,
    exposed_gateway,
    redis_of_its_own,
    refused_promptly,
)

from service.errors import RedisUnavailable
from service.gateway.withdrawals import Withdrawals
from service.local.redis import RedisServer
from service.messages import Priority, Status
from service.queue import keys
from service.queue.store import Store
from service.queue.submissions import Submissions

ACTIVE = keys.active(MODEL.name, Priority.INTERACTIVE)


@contextmanager
def hanging(server: RedisServer) -> Iterator[None]:
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("age_s", [0, 60], ids=["asked for the workers", "given a job"])
def test_11_what_a_hanging_redis_was_given_is_withdrawn(
    own_redis: RedisServer, exposed: tuple[RunningGateway, TinyWorker], age_s: float
) -> None:
    gateway, worker = exposed
    gateway.gateway.directory.max_age_s = 60
    assert gateway.ask().status_code == 200
    worker.stop()
    gateway.gateway.directory.max_age_s = age_s
    with hanging(own_redis):
        responses = ask_many(gateway)
        assert refused_promptly(responses), [(r.status_code, r.elapsed, r.text) for r in responses]
    until(lambda: gateway.http.get("/readyz").status_code == 200)
    until(lambda: not gateway.gateway.withdrawals.jobs)
    with redis.Redis.from_url(own_redis.url) as store:
        assert store.zcard(ACTIVE) == 0
        withdrawn = int(store.hget(keys.COUNTERS, "cancelled") or 0)
    # A connection that was still to be made has sent nothing.
    assert withdrawn >= 1 if age_s else withdrawn == 0


class SilentStore(Store):
    """Hangs when it is asked for the first time."""

    asked = 0

    async def ping(self) -> None:
        self.asked += 1
        if self.asked == 1:
            raise RedisUnavailable("silent")
        await super().ping()


@pytest.mark.anyio
async def test_11_a_job_is_withdrawn_however_long_redis_hangs(redis_url: str) -> None:
    store = SilentStore.connect(settings_for(redis_url))
    submissions = Submissions(store)
    job = make_job().model_copy(update={"webhook_url": "https://hooks.example.com"})
    job_id = (await submissions.enqueue(job, EVALUATIONS)).job_id
    withdrawals = Withdrawals(submissions)
    withdrawals.add(job_id)
    assert withdrawals.task
    await withdrawals.task
    assert (await submissions.view(job_id)).status is Status.CANCELLED
    assert not await store.redis.exists(keys.WEBHOOKS), "nor gets its client word of it"
    await store.close()


def test_11_a_job_with_a_key_is_there_when_its_client_comes_again(
    own_redis: RedisServer, exposed: tuple[RunningGateway, TinyWorker]
) -> None:
    gateway, worker = exposed
    gateway.gateway.directory.max_age_s = 60
    asked: dict[str, Any] = {"json": {"prompt": "a red circle"}, "headers": {"Idempotency-Key": "mine"}}
    assert gateway.ask().status_code == 200
    worker.hold.set()
    with hanging(own_redis):
        assert gateway.http.post("/generate", **asked).status_code == 503
    until(lambda: gateway.http.get("/readyz").status_code == 200)
    until(lambda: not gateway.gateway.withdrawals.jobs)
    worker.hold.clear()
    again = gateway.http.post("/generate", **asked)
    assert (again.status_code, again.headers.get("Idempotent-Replayed")) == (200, "true")
