"""Promise 10: what is too much is refused at once and says when to come back; a full Redis stops nothing else."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gateway_harness
import pytest
import redis
from crowd import Crowd
from gateway_harness import RunningGateway, TinyWorker, gateway_settings, until  # noqa: F401  a fixture
from test_gateway_promises import PROMPT, Serving, post, serving_gateways, working  # noqa: F401  a fixture

from service.local.redis import RedisServer
from service.messages import Status
from service.settings import Settings

PICTURE_BYTES, PICTURES, MORE = 200_000, 40, 10
"""What is more than six megabytes, and jobs that still wait then."""
BURST, WAITERS, CAPACITY = 900, 2000, 50
BODY = b'{"prompt":"a red circle"}'
ONE_POST = post(len(BODY)).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + BODY


@pytest.fixture
def small(tmp_path: Path) -> Iterator[redis.Redis]:
    """A Redis of six megabytes that refuses what is more."""
    with RedisServer(tmp_path / "redis") as server, redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", "6mb")
        yield client


@pytest.fixture
def filled(
    small: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[RunningGateway, TinyWorker, list[str]]]:
    """Whose Redis results have filled; the jobs that still wait or run."""
    monkeypatch.setattr(gateway_harness, "draw", lambda *_: bytes(PICTURE_BYTES))
    port = small.connection_pool.connection_kwargs["port"]
    settings = Settings(redis_url=f"redis://127.0.0.1:{port}/0", redis_timeout_s=5.0, lease_ms=60_000)
    gateway, worker = RunningGateway(settings), TinyWorker(settings)
    try:
        until(lambda: gateway.http.get("/readyz").status_code == 200)
        worker.hold.set()
        jobs = [gateway.start() for _ in range(PICTURES + MORE)]
        until(lambda: worker.taken)
        worker.hold.clear()
        until(lambda: len(worker.ended) >= PICTURES)
        worker.stop()
        assert set(worker.ended.values()) == {Status.SUCCEEDED}
        yield gateway, worker, [job for job in jobs if gateway.job(job)["status"] != Status.SUCCEEDED]
    finally:
        worker.close()
        gateway.close()


def used(store: redis.Redis) -> int:
    return int(store.info("memory")["used_memory"])


def test_10_a_redis_full_of_results_refuses_new_jobs_and_nothing_else(
    filled: tuple[RunningGateway, TinyWorker, list[str]], small: redis.Redis
) -> None:
    gateway, worker, left = filled
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        small.set("anything", "x")
    began_s = time.monotonic()
    refused = gateway.ask()
    assert time.monotonic() - began_s < 2
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:vqd:problem:queue-full")
    assert int(refused.headers["Retry-After"]) > 0
    worker.background.call(worker.announce())
    assert gateway.http.get("/readyz").status_code == 200
    done = next(iter(worker.ended))
    assert len(gateway.http.get(f"/jobs/{done}/images/0").content) == PICTURE_BYTES
    assert [gateway.http.delete(f"/jobs/{job}").status_code for job in left] == [200] * len(left)
    over = used(small)
    for key in small.scan_iter("{vqd}:*"):  # the time of all that has ended is over
        if small.ttl(key) > 0:
            small.delete(key)
    until(lambda: used(small) < over - PICTURES * PICTURE_BYTES)
    assert gateway.http.post("/generate", json=PROMPT, headers={"Prefer": "respond-async"}).status_code == 202


def answers(crowd: Crowd, size: int) -> list[tuple[int, bool]]:
    """Status of each, and whether it says when to come back."""
    until(lambda: len(crowd.closed) == size, limit_s=60)
    heads = [bytes(data).partition(b"\r\n\r\n")[0] for data in crowd.received]
    return [(int(head.split()[1]), b"\r\nretry-after:" in head.lower()) for head in heads]


def test_10_ten_times_what_it_takes_is_refused_at_once(serve: Callable[..., Serving], settings: Settings) -> None:
    serving = serve(VQD_QUEUE_CAPACITY=str(CAPACITY))
    with working(settings, serving, "tiny") as [worker]:
        worker.hold.set()
        with Crowd(serving.port, 10 * CAPACITY, ONE_POST) as crowd:
            began_s = time.monotonic()
            until(lambda: len(crowd.closed) == 9 * CAPACITY)
            assert time.monotonic() - began_s < 5
            assert serving.alive()
            worker.hold.clear()
            told = answers(crowd, 10 * CAPACITY)
        assert told.count((200, False)) == CAPACITY
        assert told.count((503, True)) == 9 * CAPACITY
        assert serving.samples("vqd_redis_errors_total") == 0


def test_10_a_burst_that_has_room_is_answered_and_nobody_blames_redis(
    serve: Callable[..., Serving], settings: Settings
) -> None:
    serving = serve()
    with working(settings, serving, "tiny"), Crowd(serving.port, BURST, ONE_POST) as crowd:
        told = answers(crowd, BURST)
        assert told == [(200, False)] * BURST, bytes(min(crowd.received, key=len))
        assert serving.samples("vqd_redis_errors_total") == 0


def test_10_many_who_wait_for_one_job_are_all_answered(serve: Callable[..., Serving], settings: Settings) -> None:
    serving = serve()
    with working(settings, serving, "tiny") as [worker]:
        worker.hold.set()
        worker.silent.set()
        asked = ONE_POST.replace(b"\r\nHost", b"\r\nIdempotency-Key: one\r\nHost", 1)
        with Crowd(serving.port, WAITERS, asked) as crowd, redis.Redis.from_url(settings.redis_url) as store:
            until(lambda: store.info("commandstats")["cmdstat_evalsha"]["calls"] >= WAITERS)
            worker.hold.clear()
            told = answers(crowd, WAITERS)
            assert told == [(200, False)] * WAITERS, bytes(min(crowd.received, key=len))
            jobs = [re.findall(rb"x-vqd-job-id: (\w+)", bytes(data), re.IGNORECASE) for data in crowd.received]
        assert jobs == [jobs[0]] * WAITERS
        assert len(worker.taken) == 1
        assert serving.samples("vqd_redis_errors_total") == 0
