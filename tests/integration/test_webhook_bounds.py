"""What one receiver, one owner or one broken record may cost the others: a real gateway and real HTTP servers."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    tiny_worker,
    until,
)
from key_support import Keyring, bearer
from openai_support import client_of
from receiver import Receiver

from service.gateway.webhooks.postman import MOST
from service.local.redis import RedisServer
from service.queue import keys
from service.settings import Settings

WEBHOOKS = {
    **{"webhook_secret": "whsec_" + "c2VjcmV0" * 4, "webhook_http": True, "webhook_retry_s": 0.05},
    **{"webhook_hosts": "localhost,127.0.0.1,127.0.0.2,127.0.0.3", "webhook_timeout_s": 30.0},
}
OF_RECEIVER, OF_OWNER = MOST["receiver"], MOST["owner"]


@pytest.fixture(name="gateway")
def sending_gateway(settings: Settings) -> Iterator[RunningGateway]:
    running = RunningGateway(settings.model_copy(update=WEBHOOKS))
    yield running
    running.close()


@pytest.fixture
def slow_and_good() -> Iterator[tuple[Receiver, Receiver, Callable[[], None]]]:
    """One that never answers, one that does at once, and what ends the wait of the first."""
    free = threading.Event()
    with ExitStack() as open_ones:
        slow = open_ones.enter_context(Receiver(lambda _: (200, {}) if free.wait(60) else (500, {}), host="0.0.0.0"))
        good = open_ones.enter_context(Receiver())
        open_ones.callback(free.set)
        yield slow, good, free.set


Pair = tuple[Receiver, Receiver, Callable[[], None]]


def delivered(gateway: RunningGateway) -> float:
    return gateway.metric('vqd_webhooks_total{outcome="delivered"}')


def test_a_receiver_that_never_answers_holds_up_its_own_only(
    gateway: RunningGateway, worker: TinyWorker, slow_and_good: Pair
) -> None:
    slow, good, answer = slow_and_good
    for _ in range(OF_RECEIVER + 3):
        gateway.start(webhook_url=f"http://127.0.0.1:{slow.port}/")
    until(lambda: len(slow.got) == OF_RECEIVER)
    job = gateway.start(webhook_url=f"http://localhost:{good.port}/")
    until(lambda: good.got)
    assert good.got[0].id == f"msg_{job}"
    assert len(slow.got) == OF_RECEIVER
    answer()
    until(lambda: delivered(gateway) == OF_RECEIVER + 4)
    assert len({got.id for got in slow.got}) == len(slow.got) == OF_RECEIVER + 3, "each once, and none forgotten"


def test_an_owner_with_many_slow_names_holds_up_its_own_only(
    gateway: RunningGateway, worker: TinyWorker, settings: Settings, slow_and_good: Pair
) -> None:
    slow, good, answer = slow_and_good
    ring = Keyring(settings)
    alice, bob = bearer(ring.make(name="alice")), bearer(ring.make(name="bob"))
    ring.close()
    for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
        for _ in range(OF_RECEIVER):
            gateway.start(alice, webhook_url=f"http://{host}:{slow.port}/")
    until(lambda: len(slow.got) == OF_OWNER)
    gateway.start(bob, webhook_url=f"http://localhost:{good.port}/")
    until(lambda: good.got)
    assert len(slow.got) == OF_OWNER
    answer()
    until(lambda: len(slow.got) == 3 * OF_RECEIVER)


def test_what_is_free_again_is_used_at_once(gateway: RunningGateway, worker: TinyWorker) -> None:
    """And not at the next look."""
    together = threading.Barrier(OF_RECEIVER)  # so that as many as may be are under way, and the next has to wait

    def answer(_: int) -> tuple[int, dict[str, str]]:
        together.wait(5)
        return 200, {}

    with Receiver(answer) as good, redis.Redis.from_url(gateway.gateway.settings.redis_url) as store:
        waiting = [gateway.start(webhook_url=f"http://localhost:{good.port}/") for _ in range(10 * OF_RECEIVER)]
        until(lambda: len(good.got) == len(waiting) and not store.exists(keys.WEBHOOKS), limit_s=6)
    assert {got.id for got in good.got} == {f"msg_{job}" for job in waiting}


@pytest.mark.parametrize(
    ("broken", "counted"),
    [
        ({"finished_ms": 10**18}, 'vqd_webhooks_total{outcome="retried"}'),
        ({"job": "{}"}, 'vqd_unreadable_records_total{kind="job"}'),
    ],
    ids=["an end at a time that no calendar has: a fault that nobody thought of", "a job of another version"],
)
def test_one_that_cannot_be_sent_ends_neither_the_gateway_nor_the_others(
    gateway: RunningGateway,
    worker: TinyWorker,
    settings: Settings,
    slow_and_good: Pair,
    broken: dict[str, str | int],
    counted: str,
) -> None:
    _, good, _ = slow_and_good
    worker.hold.set()
    job = gateway.start(webhook_url=f"http://localhost:{good.port}/marked-zq9w")
    until(lambda: job in worker.taken)
    with redis.Redis.from_url(settings.redis_url) as store:
        url = store.hget(keys.job(job), "webhook")
        store.hdel(keys.job(job), "webhook")
        worker.hold.clear()
        until(lambda: worker.ended.get(job))
        store.hset(keys.job(job), mapping={"webhook": url} | broken)
        store.zadd(keys.WEBHOOKS, {job: 1})
    until(lambda: gateway.metric(counted))
    other = gateway.start(webhook_url=f"http://localhost:{good.port}/")
    until(lambda: good.got)
    assert [got.id for got in good.got] == [f"msg_{other}"]
    assert gateway.http.get("/healthz").status_code == 200


def test_redis_may_be_away_for_a_while(settings: Settings, tmp_path: Path) -> None:
    """What was sent meanwhile is sent once more, since nobody knows of it."""
    server, answered = RedisServer(tmp_path / "redis"), threading.Event()
    told = {"redis_url": server.url, "redis_timeout_s": 0.5, "webhook_timeout_s": 2.0}
    own = settings.model_copy(update=WEBHOOKS | told)
    with ExitStack() as running, Receiver(lambda _: (200, {}) if answered.wait(20) else (500, {})) as receiver:
        with server:
            gateway = RunningGateway(own)
            running.callback(gateway.close)
            worker = TinyWorker(own)
            gateway.start(webhook_url=f"http://localhost:{receiver.port}/")
            until(lambda: receiver.got)
            worker.close()
        answered.set()
        until(lambda: gateway.metric("vqd_redis_errors_total") > 3)
        with server:
            until(lambda: len(receiver.got) > 1, limit_s=30)
            assert len({got.id for got in receiver.got}) == 1
            assert gateway.http.get("/healthz").status_code == 200


def test_one_attempt_more_that_would_come_too_late_is_not_waited_for(settings: Settings) -> None:
    told = {"webhook_retry_s": 1000.0, "webhook_give_up_s": 500.0}
    sending, worker = RunningGateway(settings.model_copy(update=WEBHOOKS | told)), TinyWorker(settings)
    try:
        with Receiver(lambda _: (500, {})) as receiver:
            sending.start(webhook_url=f"http://localhost:{receiver.port}/")
            until(lambda: sending.metric('vqd_webhooks_total{outcome="dead"}'))
    finally:
        worker.close()
        sending.close()


def test_a_request_of_openais_is_held_to_the_same(
    gateway: RunningGateway, worker: TinyWorker, slow_and_good: Pair
) -> None:
    _, good, _ = slow_and_good
    body = {"prompt": "a red circle", "webhook_url": "http://marked-zq9w.example.com/"}
    refused = gateway.http.post("/v1/images/generations", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "webhook_url")
    assert "zq9w" not in refused.text
    with client_of(gateway) as client:
        url = f"http://localhost:{good.port}/"
        client.images.generate(prompt="a red circle", extra_body={"webhook_url": url})
    until(lambda: good.got)


def test_a_line_of_thousands_for_one_that_never_answers_is_stepped_over(
    gateway: RunningGateway, worker: TinyWorker, slow_and_good: Pair
) -> None:
    copies = 9900  # of the 10,000 that there is room for
    slow, good, _ = slow_and_good
    for _ in range(OF_RECEIVER + 1):
        last = gateway.start(webhook_url=f"http://127.0.0.1:{slow.port}/")
    until(lambda: len(slow.got) == OF_RECEIVER)
    with redis.Redis.from_url(gateway.gateway.settings.redis_url) as store, store.pipeline() as pipe:
        until(lambda: store.exists(keys.webhook(last)))
        for number in range(copies):
            pipe.copy(keys.webhook(last), keys.webhook(f"copy-{number}"))
        pipe.zadd(keys.WEBHOOKS, {f"copy-{number}": 1 for number in range(copies)})
        pipe.execute()
    job = gateway.start(webhook_url=f"http://localhost:{good.port}/")
    until(lambda: good.got, limit_s=5)
    assert good.got[0].id == f"msg_{job}"
    assert len(slow.got) == OF_RECEIVER
