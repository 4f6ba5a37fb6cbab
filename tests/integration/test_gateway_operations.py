"""What operators see: probes, metrics, outages, shutdown."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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

from service.errors import RedisUnavailable
from service.gateway.binding import check_binding
from service.local.processes import end, spawn
from service.local.redis import RedisServer
from service.messages import Failure
from service.settings import Settings
from service.sockets import free_port, port_answers

PROMPT = {"prompt": "a red circle"}
PROGRAM = "from service.gateway.app import run; from service.settings import read_settings; run(read_settings())"
DOOMED = """
from service.gateway import app
from service.queue.notify import Notifier
from service.settings import read_settings

class Doomed(Notifier):
    async def run(self):
        await self.redis.blpop("doom")
        raise RuntimeError("as told")

app.Notifier = Doomed
app.run(read_settings())
"""
OUTAGE_ANSWER_S = 2.0


def test_readiness_follows_the_worker(gateway: RunningGateway, worker: TinyWorker) -> None:
    assert gateway.http.get("/readyz").json() == {"status": "ready"}
    worker.turn("unready")
    until(lambda: gateway.http.get("/readyz").status_code == 503)
    assert gateway.http.get("/readyz").json()["reasons"] == ["worker tiny is unready: as told"]
    worker.turn("ready")
    until(lambda: gateway.http.get("/readyz").status_code == 200)


def test_not_ready_without_a_worker(gateway: RunningGateway) -> None:
    response = gateway.http.get("/readyz")
    assert (response.status_code, response.json()["reasons"]) == (503, ["no live worker"])
    assert gateway.http.get("/healthz").status_code == 200


def test_metrics(gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.hold.set()
    gateway.start(priority="batch")
    until(lambda: worker.taken)
    assert gateway.metric('vqd_queue_depth{model="shapes",priority="batch"}') == 1
    assert gateway.metric('vqd_queue_depth{model="shapes",priority="interactive"}') == 0
    assert gateway.metric('vqd_workers{state="ready"}') == 1
    assert gateway.metric("vqd_redis_up") == 1
    assert gateway.metric("vqd_redis_used_bytes") > 0
    worker.hold.clear()
    gateway.http.get("/jobs/any-1")
    gateway.http.get("/jobs/any-2")
    assert gateway.metric('vqd_http_requests_total{method="GET",route="/jobs/{job_id}",status="404"}') == 2
    gateway.http.get("/made/up")
    assert gateway.metric('vqd_http_requests_total{method="GET",route="unmatched",status="404"}') == 1
    assert gateway.metric('vqd_http_request_seconds_count{route="/generate"}') == 1
    assert gateway.metric("process_open_fds") > 0


def test_a_queue_is_watched_after_its_last_worker_has_gone(gateway: RunningGateway, worker: TinyWorker) -> None:
    assert gateway.metric('vqd_queue_oldest_seconds{model="shapes",priority="interactive"}') == 0
    worker.stop()
    gateway.start()
    worker.background.call(worker.queue.unregister(worker.name))
    until(lambda: gateway.metric('vqd_workers{state="ready"}') == 0)
    assert gateway.metric('vqd_queue_depth{model="shapes",priority="interactive"}') == 1
    until(lambda: gateway.metric('vqd_queue_oldest_seconds{model="shapes",priority="interactive"}') > 0.5)


def test_docs(gateway: RunningGateway) -> None:
    assert gateway.http.get("/docs").status_code == 200
    assert "/generate" in gateway.http.get("/openapi.json").json()["paths"]


@pytest.fixture(name="own_redis")
def redis_of_its_own(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture(name="exposed")
def exposed_gateway(own_redis: RedisServer) -> Iterator[tuple[RunningGateway, TinyWorker]]:
    """A gateway and a worker whose Redis a test may hurt."""
    settings = Settings(redis_url=own_redis.url, lease_ms=60_000)
    running = RunningGateway(settings)
    worker = TinyWorker(settings)
    yield running, worker
    worker.close()
    running.close()


def ask_many(gateway: RunningGateway) -> list[httpx.Response]:
    with ThreadPoolExecutor(10) as pool:
        return list(pool.map(lambda _: gateway.ask(), range(10)))


def refused_promptly(responses: list[httpx.Response]) -> bool:
    return all(r.status_code == 503 and r.elapsed.total_seconds() < OUTAGE_ANSWER_S for r in responses)


def test_redis_stops_and_comes_back(own_redis: RedisServer, exposed: tuple[RunningGateway, TinyWorker]) -> None:
    gateway, worker = exposed
    assert gateway.ask().status_code == 200
    assert "\nvqd_queue_depth{" in gateway.http.get("/metrics").text
    worker.stop()
    own_redis.stop()
    responses = ask_many(gateway)
    assert refused_promptly(responses), [(r.status_code, r.elapsed, r.text) for r in responses]
    assert {r.json()["type"] for r in responses} == {"urn:vqd:problem:redis-unavailable"}
    assert all(r.headers["Retry-After"] for r in responses)
    assert gateway.http.get("/readyz").status_code == 503
    assert gateway.http.get("/healthz").status_code == 200
    assert "\nvqd_redis_up 0.0\n" in gateway.http.get("/metrics").text
    assert "\nvqd_queue_depth{" not in gateway.http.get("/metrics").text
    assert gateway.metric("vqd_redis_errors_total") >= 10
    own_redis.start()
    fresh = TinyWorker(gateway.gateway.settings, name="fresh")
    try:
        until(lambda: gateway.ask().status_code == 200)
        assert gateway.http.get("/readyz").status_code == 200
    finally:
        fresh.close()


def test_where_redis_is_stays_in_the_log(
    own_redis: RedisServer, exposed: tuple[RunningGateway, TinyWorker], caplog: pytest.LogCaptureFixture
) -> None:
    gateway, worker = exposed
    gateway.gateway.directory.max_age_s = 0
    worker.hold.set()
    job_id = gateway.start()
    worker.stop()
    own_redis.stop()
    texts = [gateway.http.get(path).text for path in ("/readyz", f"/jobs/{job_id}", "/v1/models")]
    texts += [gateway.ask().text, gateway.http.get(f"/jobs/{job_id}/events").text]
    assert all("Redis" in text or "redis" in text for text in texts), texts
    address = own_redis.url.removeprefix("redis://").partition("/")[0]
    host, _, port = address.partition(":")
    assert not [text for text in texts if host in text or port in text]
    assert address in caplog.text


def test_where_triton_is_stays_in_the_log(gateway: RunningGateway, worker: TinyWorker) -> None:
    secret = "Triton at ipv4:10.9.8.7:8001 is silent"
    worker.failure = Failure(kind="inference-failed", message=secret)
    answer = gateway.ask()
    job_id = answer.json()["job"]
    worker.detail = secret
    worker.turn("unready")
    until(lambda: gateway.http.get("/readyz").status_code == 503)
    texts = [answer.text, *(gateway.http.get(path).text for path in ("/readyz", f"/jobs/{job_id}"))]
    texts.append(gateway.http.get(f"/jobs/{job_id}/events").text)
    for text in texts:
        assert "Triton at (address) is silent" in text
        assert "10.9.8.7" not in text


def test_a_wrong_request_is_told_so_without_redis(
    own_redis: RedisServer, exposed: tuple[RunningGateway, TinyWorker]
) -> None:
    """Only the served model's ranges are missing in what it is told."""
    gateway, _ = exposed
    gateway.gateway.directory.max_age_s = 0
    allowed = lambda: [e["allowed"] for e in gateway.ask(n="two").json()["errors"]]  # noqa: E731
    assert allowed() == ["a whole number from 1 to 4"]
    own_redis.stop()
    assert allowed() == ["a whole number"]


def test_a_wait_that_loses_redis_says_which_job(
    own_redis: RedisServer, exposed: tuple[RunningGateway, TinyWorker]
) -> None:
    gateway, worker = exposed
    worker.hold.set()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(gateway.ask)
        until(lambda: worker.taken)
        own_redis.stop()
        response = answer.result(10)
    assert (response.status_code, response.json()["job"]) == (503, worker.taken[0])
    own_redis.start()
    until(lambda: gateway.http.get(f"/jobs/{worker.taken[0]}").status_code == 200)


class Process:
    """``run`` in a process of its own."""

    def __init__(self, redis_url: str, program: str = PROGRAM, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        own = {"VQD_REDIS_URL": redis_url, "VQD_PORT": str(self.port), **environment}
        command = [sys.executable, "-c", program]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env={**os.environ, **own}, stdout=pipe, stderr=pipe, text=True)
        until(self.answers)

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def end(self) -> tuple[int, str, str]:
        """Exit status, stdout, stderr."""
        out, err = self.process.communicate(timeout=15)
        return self.process.returncode, out, err


@pytest.fixture
def process(redis_url: str) -> Iterator[Process]:
    started = Process(redis_url)
    yield started
    started.process.kill()
    started.process.communicate()


def test_sigterm_answers_waiting_clients_and_exits_cleanly(process: Process, settings: Settings) -> None:
    worker = TinyWorker(settings)
    worker.hold.set()
    try:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(httpx.post, f"{process.url}/generate", json=PROMPT, timeout=30)
            until(lambda: worker.taken)
            with httpx.stream("GET", f"{process.url}/jobs/{worker.taken[0]}/events", timeout=30) as events:
                lines = events.iter_lines()
                next(line for line in lines if line == "event: progress")
                started_s = time.monotonic()
                process.process.terminate()
                list(lines)  # the stream ends properly, or this raises
            assert waiting.result(15).status_code == 202
        status, out, err = process.end()
        assert time.monotonic() - started_s < 5
        assert (status, out) == (0, "")
        assert "Traceback" not in err
        job_id = waiting.result().json()["id"]
        assert worker.background.call(worker.queue.view(job_id)).status == "running"
    finally:
        worker.hold.clear()
        worker.close()


def test_a_dead_background_task_ends_the_process(redis_url: str) -> None:
    process = Process(redis_url, DOOMED)
    with redis.Redis.from_url(redis_url) as client:
        client.rpush("doom", "now")
    status, _, err = process.end()
    assert status == 1
    assert "background task notifier died" in err
    last_words = json.loads(err.splitlines()[-1])
    assert (last_words["level"], last_words["message"]) == ("CRITICAL", "died of RuntimeError")
    assert last_words["exception"].startswith("Traceback")


def warnings_of(settings: Settings, exist: bool | None, log: pytest.LogCaptureFixture) -> list[str]:
    """What a gateway says at its start when there are keys, or not, or Redis is away."""

    async def any_exist() -> bool:
        if exist is None:
            raise RedisUnavailable("Redis: away")
        return exist

    log.clear()
    asyncio.run(check_binding(settings, any_exist))
    return [record.getMessage() for record in log.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_an_open_binding_says_who_is_served(host: str, caplog: pytest.LogCaptureFixture) -> None:
    elsewhere = Settings(host=host)
    assert warnings_of(elsewhere, True, caplog) == []
    [nobody] = warnings_of(elsewhere, False, caplog)
    assert re.search(f"VQD_HOST={host} .* nobody is served until `vqd keys create`", nobody)
    assert warnings_of(elsewhere, None, caplog) == ["whether there are API keys is not known yet: Redis: away"]
    [everyone] = warnings_of(elsewhere.model_copy(update={"allow_unauthenticated": True}), True, caplog)
    assert re.search(f"VQD_HOST={host} .* VQD_ALLOW_UNAUTHENTICATED=true serves all", everyone)


def test_a_gateway_without_keys_starts_everywhere_and_serves_nobody(redis_url: str, tmp_path: Path) -> None:
    log, port = tmp_path / "log", free_port()
    told = {"VQD_REDIS_URL": redis_url, "VQD_HOST": "0.0.0.0", "VQD_PORT": str(port)}
    process = spawn([sys.executable, "-c", PROGRAM], log, told)
    try:
        until(lambda: "nobody is served until `vqd keys create`" in log.read_text(), limit_s=30)
        until(lambda: port_answers("127.0.0.1", port))
        answer = httpx.get(f"http://127.0.0.1:{port}/v1/models", timeout=15)
        assert (answer.status_code, "vqd keys create" in answer.json()["detail"]) == (401, True)
        assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=15).status_code == 200
    finally:
        end(process)


def test_a_port_that_the_system_picks_is_logged(redis_url: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = spawn([sys.executable, "-c", PROGRAM], log, {"VQD_REDIS_URL": redis_url, "VQD_PORT": "0"})
    try:
        line = r"the gateway listens at 127\.0\.0\.1, port (\d+)"
        port = until(lambda: re.search(line, log.read_text()), limit_s=30)[1]
        assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=15).status_code == 200
    finally:
        end(process)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_warning(host: str, caplog: pytest.LogCaptureFixture) -> None:
    assert warnings_of(Settings(host=host), False, caplog) == []
