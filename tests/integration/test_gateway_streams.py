"""Following a job's events: many at once, each without gap or repeat, and Redis is asked once for all of them."""

import random
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
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

from service.messages import Event, Status
from service.queue import keys
from service.settings import Settings


@pytest.fixture
def store(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.redis_url) as client:
        yield client


def ids(text: str) -> list[str]:
    """Of the events that came whole."""
    return [match[1] for frame in text.split("\n\n")[:-1] if (match := re.search(r"^id: (.*)$", frame, re.MULTILINE))]


def say(worker: TinyWorker, job_id: str, evaluation: int) -> None:
    """Progress of a job that the worker holds."""
    event = Event(evaluation=evaluation, evaluations=100, committed=0.5, status=Status.RUNNING)
    row: dict[Any, Any] = event.model_dump(mode="json", exclude_none=True)

    async def announce() -> None:
        await worker.queue.redis.xadd(keys.events(job_id), row, id=f"{evaluation}-0")
        await worker.queue.redis.publish(keys.CHANNEL, job_id)

    worker.background.call(announce())


def reads(store: redis.Redis) -> int:
    """Readings of a job's state and of its events since the last call."""
    stats = store.info("commandstats")
    store.config_resetstat()
    return sum(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"] for command in ("hmget", "xrange"))


def test_redis_is_read_once_per_change_whoever_listens(
    gateway: RunningGateway, worker: TinyWorker, store: redis.Redis
) -> None:
    worker.hold.set()
    worker.silent.set()
    job_id = gateway.start()
    until(lambda: gateway.job(job_id)["evaluation"] == 1)
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=gateway.url, timeout=30)) for _ in range(20)]
        streams = [stack.enter_context(client.stream("GET", f"/jobs/{job_id}/events")) for client in clients]
        texts = [stream.iter_text() for stream in streams]
        seen = ["" for _ in streams]

        def read_until(last: str) -> None:
            for number, text in enumerate(texts):
                while f"id: {last}\n" not in seen[number]:
                    seen[number] += next(text)

        read_until("1-0")
        reads(store)
        for evaluation in (2, 3, 4):
            say(worker, job_id, evaluation)
            read_until(f"{evaluation}-0")
        assert reads(store) <= 2 * 3 + 2  # state and events, for each change; a spare for the worker and a late look
    assert {tuple(ids(text)) for text in seen} == {("1-0", "2-0", "3-0", "4-0")}
    until(lambda: not gateway.gateway.feeds.feeds)
    assert gateway.gateway.feeds.listeners == 0
    worker.hold.clear()


def test_several_events_at_once_are_sent_once(gateway: RunningGateway, worker: TinyWorker, store: redis.Redis) -> None:
    """A live stream goes on after the last event that it read, not after the first."""
    worker.hold.set()
    worker.silent.set()
    job_id = gateway.start()
    until(lambda: gateway.job(job_id)["evaluation"] == 1)
    with gateway.http.stream("GET", f"/jobs/{job_id}/events") as response:
        lines = response.iter_lines()
        next(line for line in lines if line == "id: 1-0")
        with store.pipeline(transaction=True) as pipe:
            for evaluation in (2, 3, 4):
                fields = {"evaluation": evaluation, "evaluations": 9, "committed": 0.5, "status": "running"}
                pipe.xadd(keys.events(job_id), fields, id=f"{evaluation}-0")
            pipe.publish(keys.CHANNEL, job_id)
            pipe.execute()
        assert read_to(lines, "id: 4-0") == ["id: 2-0", "id: 3-0", "id: 4-0"]
        say(worker, job_id, 5)
        assert read_to(lines, "id: 5-0") == ["id: 5-0"]
        with httpx.stream("GET", f"{gateway.url}/jobs/{job_id}/events") as later:
            whole = read_to(later.iter_lines(), "id: 5-0")
    assert whole == ["id: 1-0", "id: 2-0", "id: 3-0", "id: 4-0", "id: 5-0"]
    worker.hold.clear()


def read_to(lines: Iterator[str], last: str) -> list[str]:
    """The ids up to the last of them."""
    found: list[str] = []
    while last not in found:
        found.append(next(line for line in lines if line.startswith("id:")))
    return found


def test_a_stream_that_is_cut_anywhere_resumes_without_gap_or_repeat(
    gateway: RunningGateway, worker: TinyWorker
) -> None:
    job_id = gateway.ask().json()["id"]
    for evaluation in range(5, 60):
        say(worker, job_id, evaluation)
    whole = ids(gateway.http.get(f"/jobs/{job_id}/events").text)
    assert len(whole) > 50
    choose, seen = random.Random(5), list[str]()
    while len(seen) < len(whole):
        line = f"GET /jobs/{job_id}/events HTTP/1.0\r\nHost: localhost"
        head = f"{line}\r\nLast-Event-ID: {seen[-1] if seen else ''}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as client:
            client.sendall(head.encode())
            left, data = choose.randrange(600, 3000), b""
            while left > 0 and (chunk := client.recv(left)):
                data, left = data + chunk, left - len(chunk)
        seen += ids(data.decode())
    assert seen == whole


def test_one_stream_too_many_is_told_to_come_later(settings: Settings) -> None:
    running = RunningGateway(settings.model_copy(update={"max_streams": 2}))
    worker = TinyWorker(settings)
    worker.hold.set()
    try:
        until(lambda: running.http.get("/readyz").status_code == 200)
        path = f"/jobs/{running.start()}/events"
        with ExitStack() as stack:
            clients = [stack.enter_context(httpx.Client(base_url=running.url)) for _ in range(2)]
            for client in clients:
                lines = stack.enter_context(client.stream("GET", path)).iter_lines()
                stack.callback(lines.close)  # a generator that is thrown away would end the stream
                next(line for line in lines if line.startswith("id:"))
            refused = running.http.get(path)
            assert (refused.status_code, refused.json()["type"]) == (503, "urn:vqd:problem:unavailable")
            assert int(refused.headers["Retry-After"]) > 0
            assert running.http.get("/readyz").status_code == 200
        until(lambda: running.gateway.feeds.listeners == 0)
        with running.http.stream("GET", path) as stream:
            assert stream.status_code == 200
    finally:
        worker.hold.clear()
        worker.close()
        running.close()
