"""Requests at the edge of what is allowed, and jobs whose notifications or records are lost."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)

from service.queue import keys
from service.settings import Settings

JSON = {"Content-Type": "application/json"}


def body_of(size: int) -> bytes:
    text = json.dumps({"prompt": "a red circle"})
    return text.encode() + b" " * (size - len(text))


def in_pieces(body: bytes) -> Iterator[bytes]:
    """Sent in chunks, its length is not declared."""
    for i in range(0, len(body), 1000):
        yield body[i : i + 1000]


@pytest.mark.parametrize("send", [bytes, in_pieces], ids=["declared", "in pieces"])
@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 413)])
def test_a_body_may_have_exactly_the_limit(
    gateway: RunningGateway, worker: TinyWorker, settings: Settings, send: type, more: int, status: int
) -> None:
    content = send(body_of(settings.max_body_bytes + more))
    assert gateway.http.post("/generate", content=content, headers=JSON).status_code == status


def test_zero_is_a_value_and_not_nothing(gateway: RunningGateway, worker: TinyWorker) -> None:
    used = gateway.ask(seed=0, guidance_scale=0, purity_r=0).json()["parameters"]
    assert (used["seed"], used["guidance_scale"], used["purity_r"]) == (0, 0, 0)


def test_pictures_of_one_job_are_told_apart(gateway: RunningGateway, worker: TinyWorker) -> None:
    job_id = gateway.ask(n=2).json()["id"]
    first, second = [gateway.http.get(f"/jobs/{job_id}/images/{index}") for index in range(2)]
    assert first.content != second.content
    assert first.headers["ETag"] != second.headers["ETag"]


@pytest.fixture
def store(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.redis_url) as client:
        yield client


def test_a_wait_ends_though_nobody_told_of_the_end(
    gateway: RunningGateway, worker: TinyWorker, store: redis.Redis
) -> None:
    """A message may be lost with the connection to Redis; the job itself is the truth."""
    worker.hold.set()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(gateway.ask)
        until(lambda: worker.taken)
        until(lambda: gateway.gateway.notifier.watches)
        store.hset(keys.job(worker.taken[0]), "status", "cancelled")
        assert answer.result(10).status_code == 409


@pytest.mark.parametrize(
    ("path", "more"), [("/generate", {}), ("/v1/images/generations", {}), ("/v1/images/generations", {"stream": True})]
)
def test_a_job_that_is_lost_is_worth_another_try(
    gateway: RunningGateway, worker: TinyWorker, store: redis.Redis, path: str, more: dict[str, bool]
) -> None:
    """As when a replica that does not have it takes the primary's place."""
    worker.hold.set()
    asked = {"prompt": "a red circle"} | more
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: gateway.http.post(path, json=asked))
        [job_id] = until(lambda: worker.taken)
        until(lambda: gateway.gateway.notifier.watches)
        store.delete(keys.job(job_id))
        store.publish(keys.CHANNEL, f"{job_id} ended")
        answer = waiting.result(10)
    assert f"Redis has lost job {job_id}; ask again" in answer.text
    assert "Idempotency-Key" not in answer.text
    if not more:
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


def test_a_stream_of_a_key_whose_job_has_expired_says_so(
    gateway: RunningGateway, worker: TinyWorker, store: redis.Redis
) -> None:
    asked = {"json": {"prompt": "a red circle", "stream": True}, "headers": {"Idempotency-Key": "mine"}}
    first = gateway.http.post("/v1/images/generations", **asked)  # type: ignore[arg-type]
    store.delete(keys.job(first.headers["X-Vqd-Job-Id"]))
    assert "has expired" in gateway.http.post("/v1/images/generations", **asked).text  # type: ignore[arg-type]


def test_a_stream_ends_when_its_job_has_expired(
    gateway: RunningGateway, worker: TinyWorker, store: redis.Redis
) -> None:
    worker.hold.set()
    job_id = gateway.start()
    with gateway.http.stream("GET", f"/jobs/{job_id}/events", timeout=5) as response:
        lines = response.iter_lines()
        next(line for line in lines if line.startswith("event:"))
        store.delete(keys.job(job_id), keys.events(job_id))
        store.publish(keys.CHANNEL, job_id)
        assert not [line for line in lines if line.startswith("event:")]


def test_a_gateway_that_stops_is_not_ready(gateway: RunningGateway, worker: TinyWorker) -> None:
    gateway.background_call(gateway.gateway.stopping.set)
    until(gateway.gateway.stopping.is_set)
    response = gateway.http.get("/readyz")
    assert (response.status_code, response.json()["reasons"]) == (503, ["the gateway is stopping"])
