"""Promises 13, 20 and 21 of reliability.md: what clients do to a gateway that runs in a process of its own."""

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import redis
from crowd import Crowd
from gateway_harness import TinyWorker, gateway_settings, until  # noqa: F401  the settings are a fixture

from service.local.probe import probe
from service.local.processes import end, spawn
from service.messages import Event, Status
from service.queue import keys
from service.settings import Settings
from service.sockets import free_port

PROGRAM = "from service.gateway.app import run; from service.settings import read_settings; run(read_settings())"
UNDER = ["sh", "-c", 'ulimit -n "$0"; exec "$@"']
JSON = {"Content-Type": "application/json"}
PROMPT = {"prompt": "a red circle"}
LISTENERS = 1000


class Serving:
    """A gateway process at its default settings, and a client of it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def samples(self, pattern: str) -> float:
        """The sum of the samples of /metrics that match."""
        lines = self.http.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if re.match(pattern, line))

    def resident_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]

    def alive(self) -> bool:
        """On a connection of its own."""
        return httpx.get(f"http://127.0.0.1:{self.port}/healthz", timeout=5).status_code == 200


@pytest.fixture(name="serve")
def serving_gateways(redis_url: str, tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    started: list[Serving] = []

    def start(descriptors: int = 0, **environment: str) -> Serving:
        port, log = free_port(), tmp_path / f"gateway-{len(started)}.log"
        limited = [*UNDER, str(descriptors)] if descriptors else []
        own = {"VQD_REDIS_URL": redis_url, "VQD_PORT": str(port), **environment}
        process = spawn([*limited, sys.executable, "-c", PROGRAM], log, own)
        started.append(Serving(process, port, log))
        until(lambda: probe(f"http://127.0.0.1:{port}/healthz") is None, limit_s=60)
        return started[-1]

    yield start
    for serving in started:
        serving.http.close()
        end(serving.process)


@contextmanager
def working(settings: Settings, serving: Serving, *names: str) -> Iterator[list[TinyWorker]]:
    workers = [TinyWorker(settings, name=name) for name in names]
    try:
        until(lambda: serving.http.get("/readyz").status_code == 200)
        yield workers
    finally:
        for worker in workers:
            worker.hold.clear()
            worker.close()


def ids(data: bytes) -> list[str]:
    return re.findall(r"^id: (.*)$", data.decode(), re.MULTILINE)


def test_13_a_thousand_listeners_of_one_job_disturb_nobody(serve: Callable[..., Serving], settings: Settings) -> None:
    serving = serve()
    with working(settings, serving, "busy", "free") as workers:
        for worker in workers:
            worker.hold.set()
            worker.silent.set()
        followed = serving.http.post("/generate", json=PROMPT, headers={"Prefer": "respond-async"}).json()["id"]
        busy = until(lambda: next((worker for worker in workers if followed in worker.taken), None))
        for worker in workers:
            if worker is not busy:
                worker.hold.clear()
        head = f"GET /jobs/{followed}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        with Crowd(serving.port, LISTENERS, head) as crowd:
            until(lambda: all(b"id: 1-0" in data for data in crowd.received), limit_s=60)
            with redis.Redis.from_url(settings.redis_url) as store:
                store.config_resetstat()
                slowest_s = max(ask_while_it_is_told(serving, store, followed, number) for number in range(2, 12))
                until(lambda: all(b"id: 11-0" in data for data in crowd.received), limit_s=60)
                readings = store.info("commandstats")["cmdstat_xrange"]["calls"]
            busy.hold.clear()
            busy.silent.clear()
            until(lambda: all(data.endswith(b"\r\n0\r\n\r\n") for data in crowd.received), limit_s=60)
            expected = [*(f"{evaluation}-0" for evaluation in range(1, 12)), "11-1"]
            assert {tuple(ids(bytes(data))) for data in crowd.received} == {tuple(expected)}
        # The workers' scripts read streams, too; ten changes read by each listener would be ten thousand.
        assert readings < LISTENERS, "Redis is read once per change, whoever listens"
        assert slowest_s < 5
        assert serving.samples("vqd_redis_errors_total") == 0
        assert serving.samples(r'vqd_http_requests_total\{.*status="5') == 0


def ask_while_it_is_told(serving: Serving, store: redis.Redis, job_id: str, evaluation: int) -> float:
    """Progress of the job, and meanwhile what other clients do → seconds that these took."""
    event = Event(evaluation=evaluation, evaluations=20, committed=0.5, status=Status.RUNNING)
    fields = event.model_dump(mode="json", exclude_none=True)
    store.xadd(keys.events(job_id), fields, id=f"{evaluation}-0")
    store.hset(keys.job(job_id), "evaluation", evaluation)
    store.publish(keys.CHANNEL, job_id)
    began_s = time.monotonic()
    assert serving.http.post("/generate", json=PROMPT).status_code == 200
    assert serving.http.get("/readyz").status_code == 200
    assert serving.http.get(f"/jobs/{job_id}").json()["evaluation"] == evaluation
    return time.monotonic() - began_s


def test_20_what_clients_do_wrong_or_choose_is_no_fault_of_ours(
    serve: Callable[..., Serving], settings: Settings
) -> None:
    serving = serve(VQD_REQUEST_TIMEOUT_S="0.5")
    with working(settings, serving, "tiny") as [worker]:
        answers = [
            serving.http.post("/generate", content=body, headers=JSON)
            for body in (b"", b"[]", b'{"prompt":""}', b'{"prompt":"a","n":0}', b'{"prompt":"a","a":1}', b" " * 70_000)
        ]
        answers += [
            serving.http.post("/generate", json=PROMPT | {"model": "none"}),
            serving.http.post("/generate", json=PROMPT, headers={"Accept": "text/html"}),
            serving.http.post("/generate", content=b"a", headers={"Content-Type": "text/plain"}),
            serving.http.put("/generate"),
        ]
        assert {answer.status_code for answer in answers} == {404, 405, 406, 413, 415, 422}
        worker.hold.set()
        held = serving.http.post("/generate", json=PROMPT, headers={"Prefer": "respond-async"}).json()["id"]
        until(lambda: held in worker.taken)
        late = [serving.http.post("/generate", json=PROMPT | {"deadline_s": seconds}) for seconds in (5e-324, 0.2)]
        assert {answer.status_code for answer in late} == {409}
        cancelled_by_another(serving)
        body = json.dumps(PROMPT).encode()
        for sent in (post(len(body)) + body, post(100) + b"{"):
            with socket.create_connection(("127.0.0.1", serving.port)) as client:
                client.sendall(sent)
                time.sleep(0.1)
        with Crowd(serving.port, 1, post(100) + b"{") as crowd:
            until(lambda: crowd.closed)
            assert crowd.received[0].startswith(b"HTTP/1.1 408 ")
        until(lambda: serving.samples(r'vqd_http_requests_total\{.*status="(499|0)"') >= 3)
    assert serving.samples(r'vqd_http_requests_total\{.*status="5') == 0
    assert "ERROR" not in serving.log.read_text()


def cancelled_by_another(serving: Serving) -> None:
    """A client waits, another one cancels its job."""
    answers: list[httpx.Response] = []
    headers = {"Idempotency-Key": "mine"}
    waiting = threading.Thread(
        target=lambda: answers.append(serving.http.post("/generate", json=PROMPT, headers=headers))
    )
    waiting.start()
    with httpx.Client(base_url=serving.http.base_url) as other:
        asynchronous = headers | {"Prefer": "respond-async"}
        until(lambda: other.get("/metrics").text.count('route="/generate"'))
        job_id = other.post("/generate", json=PROMPT, headers=asynchronous).json()["id"]
        assert other.delete(f"/jobs/{job_id}").status_code == 200
    waiting.join(15)
    assert [answer.status_code for answer in answers] == [409]


def post(length: int) -> bytes:
    """The head of a request."""
    head = f"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}"
    return f"{head}\r\n\r\n".encode()


def test_21_half_requests_take_nobodys_place(serve: Callable[..., Serving]) -> None:
    serving = serve(descriptors=256)
    with Crowd(serving.port, 300, b"GET / HTTP/1.1\r\n"):
        for _ in range(20):
            assert serving.alive()
            time.sleep(0.05)
    assert serving.alive()
    assert len(serving.log.read_bytes()) < 50_000


def test_21_more_than_there_are_descriptors_are_a_line_a_second(serve: Callable[..., Serving]) -> None:
    """Where the limit of connections does not help: so few descriptors are left that accepting fails."""
    serving = serve(descriptors=40)
    with Crowd(serving.port, 100, b"GET / HTTP/1.1\r\n"):
        time.sleep(1.5)
    until(serving.alive, 20)
    assert len(serving.log.read_bytes()) < 50_000


def test_21_a_byte_a_second_buys_no_time(serve: Callable[..., Serving]) -> None:
    serving = serve(VQD_REQUEST_TIMEOUT_S="1")
    with Crowd(serving.port, 500, b"POST /generate HTTP/1.1\r\nX: a") as crowd:
        began_s = time.monotonic()
        while len(crowd.closed) < 500:
            assert time.monotonic() - began_s < 15
            crowd.say(b"a")
            assert serving.alive()
            time.sleep(0.2)
        assert sum(data.startswith(b"HTTP/1.1 408 ") for data in crowd.received) >= 450


def test_21_heads_without_end_cost_little(serve: Callable[..., Serving]) -> None:
    serving = serve()
    before_mib = serving.resident_mib()
    with Crowd(serving.port, 100, b"GET / HTTP/1.1\r\n") as crowd:
        for _ in range(12):
            crowd.say(b"X: " + b"a" * 65_000 + b"\r\n")
        until(lambda: len(crowd.closed) == 100)
    assert serving.resident_mib() - before_mib < 30
