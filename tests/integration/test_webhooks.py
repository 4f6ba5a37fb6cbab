"""Webhooks from the request to the receiver: a real gateway, queue and HTTP server."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest
import redis
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    until,
)
from key_support import Keyring, bearer
from receiver import Receiver
from standardwebhooks import WebhookVerificationError

from service.messages import Failure
from service.queue import keys
from service.settings import Settings

SECRET = "whsec_" + "c2VjcmV0" * 4
ALLOWED = {"webhook_hosts": "localhost,127.0.0.1", "webhook_http": True}
QUICK = {"webhook_secret": SECRET, "webhook_retry_s": 0.05, "webhook_timeout_s": 5.0}
Start = Callable[..., RunningGateway]


@pytest.fixture
def start(settings: Settings) -> Iterator[Start]:
    """Gateways on one Redis, with webhooks; each may have settings of its own."""
    with ExitStack() as running:

        def one(**changes: object) -> RunningGateway:
            gateway = RunningGateway(settings.model_copy(update={**QUICK, **ALLOWED, **changes}))
            running.callback(gateway.close)
            return gateway

        yield one


@pytest.fixture
def worker(settings: Settings) -> Iterator[TinyWorker]:
    tiny = TinyWorker(settings)
    yield tiny
    tiny.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening


@pytest.fixture
def store(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.redis_url) as client:
        yield client


def secret(gateway: RunningGateway, headers: dict[str, str] | None = None) -> str:
    return str(gateway.http.get("/webhooks/secret", headers=headers).json()["secret"])


def settled(store: redis.Redis) -> bool:
    """Whether nothing of any webhook is left."""
    return not store.exists(keys.WEBHOOKS) and not store.keys("*webhook*")


def count(gateway: RunningGateway, outcome: str) -> float:
    return gateway.metric(f'vqd_webhooks_total{{outcome="{outcome}"}}')


def test_the_end_of_a_job_is_posted_once_signed_and_with_links(
    start: Start, worker: TinyWorker, receiver: Receiver, store: redis.Redis
) -> None:
    gateway = start()
    assert count(gateway, "delivered") == 0
    job = gateway.start(n=2, webhook_url=receiver.url)
    [got] = until(lambda: receiver.got)
    told = got.verified(secret(gateway))
    assert (told["type"], told["data"]) == ("job.succeeded", gateway.job(job))
    assert told["timestamp"].endswith("Z")
    assert [image["url"] for image in told["data"]["images"]] == [f"/jobs/{job}/images/{i}" for i in range(2)]
    assert (got.id, got.path) == (f"msg_{job}", "/hook?token=marked-zq9w")
    assert (got.headers["Content-Type"], got.headers["Host"]) == ("application/json", f"localhost:{receiver.port}")
    until(lambda: settled(store))
    assert count(gateway, "delivered") == 1
    assert len(receiver.got) == 1


def test_a_job_that_fails_or_is_cancelled_has_an_end_too(start: Start, worker: TinyWorker, receiver: Receiver) -> None:
    gateway = start()
    worker.failure = Failure(kind="inference-failed", message="a picture of noise")
    assert gateway.ask(webhook_url=receiver.url).status_code == 500
    [got] = until(lambda: receiver.got)
    told = got.verified(secret(gateway))
    assert (told["type"], told["data"]["error"]) == ("job.failed", "a picture of noise")
    worker.stop()
    waiting = gateway.start(webhook_url=receiver.url)
    gateway.http.delete(f"/jobs/{waiting}")
    until(lambda: len(receiver.got) == 2)
    assert receiver.got[1].verified(secret(gateway))["type"] == "job.cancelled"


def test_a_receiver_that_fails_gets_the_same_message_again(
    start: Start, worker: TinyWorker, receiver: Receiver, store: redis.Redis
) -> None:
    gateway = start()
    receiver.answer = lambda attempt: ((500, {}), (404, {}), (302, {"Location": "/elsewhere"}), (200, {}))[attempt]
    job = gateway.start(webhook_url=receiver.url)
    until(lambda: settled(store) and len(receiver.got) == 4)
    assert {got.id for got in receiver.got} == {f"msg_{job}"}
    assert len({got.body for got in receiver.got}) == 1
    assert {got.path for got in receiver.got} == {"/hook?token=marked-zq9w"}, "no redirect is followed"
    assert all(got.verified(secret(gateway)) for got in receiver.got)
    assert (count(gateway, "retried"), count(gateway, "delivered")) == (3, 1)


def test_410_ends_it(start: Start, worker: TinyWorker, receiver: Receiver, store: redis.Redis) -> None:
    gateway = start()
    receiver.answer = lambda _: (410, {})
    gateway.start(webhook_url=receiver.url)
    until(lambda: receiver.got and settled(store))
    assert (len(receiver.got), count(gateway, "gone")) == (1, 1)


def test_it_is_given_up_in_the_end(start: Start, worker: TinyWorker, receiver: Receiver, store: redis.Redis) -> None:
    gateway = start(webhook_give_up_s=3.0)
    receiver.answer = lambda _: (503, {})
    gateway.start(webhook_url=receiver.url)
    until(lambda: receiver.got and settled(store))
    assert count(gateway, "dead") == 1
    assert count(gateway, "retried") == len(receiver.got) - 1 > 0


def test_a_slow_receiver_is_not_waited_for_and_holds_nobody_up(
    start: Start, worker: TinyWorker, receiver: Receiver
) -> None:
    gateway, free = start(webhook_timeout_s=0.3), threading.Event()
    with Receiver(lambda _: (200, {}) if free.wait(10) else (500, {})) as slow:
        gateway.start(webhook_url=slow.url)
        until(lambda: slow.got)
        gateway.start(webhook_url=receiver.url)
        until(lambda: receiver.got)
        until(lambda: count(gateway, "retried"))
        free.set()
        until(lambda: count(gateway, "delivered") == 2)


def test_an_answer_without_end_is_not_read(start: Start, worker: TinyWorker, receiver: Receiver) -> None:
    gateway = start()
    receiver.answer = lambda _: (200, {"Content-Length": str(10**12)})
    gateway.start(webhook_url=receiver.url)
    until(lambda: count(gateway, "delivered") == 1)


def test_another_gateway_delivers_what_one_left_behind(
    start: Start, worker: TinyWorker, receiver: Receiver, settings: Settings
) -> None:
    """The one that accepted the job is gone before its end."""
    accepting = start()
    worker.hold.set()
    job = accepting.start(webhook_url=receiver.url)
    until(lambda: worker.taken)
    accepting.server.force_exit = accepting.server.should_exit = True
    accepting.thread.join(15)
    worker.hold.clear()
    until(lambda: worker.ended.get(job))
    assert receiver.got == []
    start()
    until(lambda: receiver.got)
    assert receiver.got[0].id == f"msg_{job}"


def test_of_a_job_that_is_to_be_withdrawn_nobody_gets_word(
    start: Start, worker: TinyWorker, receiver: Receiver, store: redis.Redis
) -> None:
    """Its client was told 503, and it ended before anybody could withdraw it."""
    gateway = start()
    worker.hold.set()
    unknown, known = [gateway.start(webhook_url=receiver.url) for _ in range(2)]
    gateway.gateway.withdrawals.jobs[unknown] = None
    worker.hold.clear()
    until(lambda: receiver.got and settled(store))
    assert [got.id for got in receiver.got] == [f"msg_{known}"]


def test_it_reaches_the_receiver_though_the_job_has_expired(
    start: Start, worker: TinyWorker, receiver: Receiver, store: redis.Redis
) -> None:
    gateway = start(webhook_retry_s=0.5)
    receiver.answer = lambda attempt: (500 if attempt == 0 else 200, {})
    job = gateway.start(webhook_url=receiver.url)
    until(lambda: receiver.got)
    store.delete(keys.job(job))
    until(lambda: settled(store))
    assert receiver.got[-1].verified(secret(gateway))["data"]["id"] == job


def test_each_key_has_a_secret_of_its_own(
    start: Start, worker: TinyWorker, receiver: Receiver, settings: Settings
) -> None:
    ring = Keyring(settings)
    alice, bob, reader = ring.make(name="alice"), ring.make(name="bob"), ring.make("read", name="reader")
    gateway = start()
    gateway.start(bearer(alice), webhook_url=receiver.url)
    [got] = until(lambda: receiver.got)
    assert got.verified(secret(gateway, bearer(alice)))
    with pytest.raises(WebhookVerificationError):
        got.verified(secret(gateway, bearer(bob)))
    with pytest.raises(WebhookVerificationError):
        got.verified(SECRET)
    assert gateway.http.get("/webhooks/secret", headers=bearer(reader)).status_code == 403
    ring.close()


def test_while_there_are_two_secrets_either_is_enough(start: Start, worker: TinyWorker, receiver: Receiver) -> None:
    former = start()
    gateway = start(webhook_secret=f"whsec_{'bmV3ZXN0' * 4},{SECRET}")
    former_secret = secret(former)
    with contextlib.suppress(AssertionError):
        former.close()
    gateway.start(webhook_url=receiver.url)
    [got] = until(lambda: receiver.got)
    assert secret(gateway) != former_secret
    assert got.verified(secret(gateway)) == got.verified(former_secret)


def test_a_retried_request_makes_one_job_and_one_webhook(
    start: Start, worker: TinyWorker, receiver: Receiver, store: redis.Redis
) -> None:
    gateway, once = start(), {"Idempotency-Key": "once"}
    jobs = {gateway.start(once, seed=1, webhook_url=receiver.url) for _ in range(3)}
    until(lambda: receiver.got and settled(store))
    assert len(jobs) == len(receiver.got) == 1


@pytest.mark.parametrize("end", ["a worker of the version before", "nobody"])
def test_an_end_that_was_written_without_a_word_of_webhooks_is_found(
    start: Start, worker: TinyWorker, receiver: Receiver, store: redis.Redis, end: str
) -> None:
    gateway = start()
    worker.hold.set()
    job = gateway.start(webhook_url=receiver.url)
    until(lambda: worker.taken)
    store.hdel(keys.job(job), "webhook")  # so that the present script knows as little
    if end == "nobody":
        store.zadd(keys.WEBHOOKS, {job: 1})
        until(lambda: store.zscore(keys.WEBHOOKS, job) > 1)
        assert receiver.got == []
        return
    worker.hold.clear()
    until(lambda: worker.ended.get(job))
    store.hset(keys.job(job), "webhook", receiver.url)
    store.zadd(keys.WEBHOOKS, {job: 1})
    until(lambda: receiver.got)
    assert receiver.got[0].verified(secret(gateway))["data"]["id"] == job


def test_too_many_that_are_not_answered_are_refused(
    start: Start, worker: TinyWorker, store: redis.Redis, receiver: Receiver
) -> None:
    gateway = start()
    now_ms = store.time()[0] * 1000
    store.zadd(keys.owner_webhooks(""), {f"job-{number}": now_ms for number in range(1000)})
    refused = gateway.ask(webhook_url=receiver.url)
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:vqd:problem:queue-full")
    assert refused.headers["Retry-After"]
    assert gateway.ask().status_code == 200
    store.delete(keys.owner_webhooks(""))
    gateway.start(webhook_url=receiver.url)
    until(lambda: receiver.got)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://localhost/", "must be a URL that begins with https:// or http://"),
        ("no url", "must be a URL"),
        ("https://", "must be a URL"),
        ("http://user:marked-zq9w@localhost/", "must have no user or password"),
        ("http://example.com/", "none that the operator of this service allows"),
        ("http://localhost.example.com/", "none that the operator of this service allows"),
    ],
)
def test_a_wrong_url_is_named_and_not_repeated(start: Start, worker: TinyWorker, url: str, why: str) -> None:
    wrong(start().ask(webhook_url=url), why)


def wrong(response: httpx.Response, why: str) -> None:
    assert response.status_code == 422, response.text
    [error] = response.json()["errors"]
    assert error["field"] == "webhook_url"
    assert why in error["message"]
    assert "zq9w" not in response.text


def test_without_the_setting_only_https_to_public_addresses(start: Start, worker: TinyWorker) -> None:
    gateway = start(webhook_hosts="", webhook_http=False)
    wrong(gateway.ask(webhook_url="http://example.com/"), "begins with https://")
    for host in ("localhost", "127.1", "[::1]", "[::ffff:10.0.0.1]", "169.254.169.254", "10.1.2.3"):
        wrong(gateway.ask(webhook_url=f"https://{host}/"), "not public")
    wrong(gateway.ask(webhook_url="https://no-such-host.invalid/"), "no address that could be found")


def test_a_service_without_a_secret_sends_none(start: Start, worker: TinyWorker) -> None:
    gateway = start(webhook_secret="")
    wrong(gateway.ask(webhook_url="http://localhost/"), "VQD_WEBHOOK_SECRET")
    assert gateway.http.get("/webhooks/secret").status_code == 404


def test_an_address_that_is_not_allowed_by_now_gets_nothing(
    start: Start, worker: TinyWorker, receiver: Receiver, store: redis.Redis
) -> None:
    """Accepted by a gateway that allows it, delivered by one that allows only what is public."""
    worker.hold.set()
    accepting = start()
    job = accepting.start(webhook_url=receiver.url)
    until(lambda: worker.taken)
    with contextlib.suppress(AssertionError):
        accepting.close()
    strict = start(webhook_hosts="")
    worker.hold.clear()
    until(lambda: worker.ended.get(job) and settled(store))
    assert (receiver.got, count(strict, "refused")) == ([], 1)
