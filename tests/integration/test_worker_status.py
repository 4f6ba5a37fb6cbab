"""What a worker's own port says, and whether it tells the truth: real worker processes, a real Redis, Triton's fake."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from fleet import Fleet, write_repository
from gateway_harness import MODEL, until
from prometheus_client import CollectorRegistry

from service.local.redis import RedisServer
from service.queue.store import Store
from service.settings import Settings
from service.sockets import free_port
from service.telemetry.metrics import WorkerMetrics
from service.telemetry.tracing import Tracer
from service.triton.client import TritonClient
from service.triton.repository import read_repository
from service.worker.status import status_app
from service.worker.worker import Worker

Ask = Callable[[str], httpx.Response]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """One that the test may stop."""
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def fleet(redis: RedisServer, tmp_path: Path) -> Iterator[Fleet]:
    subject = Fleet(redis.url, tmp_path, worker_metrics_port=free_port(), triton_timeout_s=0.5)
    yield subject
    subject.close()


@pytest.fixture
def ask(fleet: Fleet) -> Ask:
    fleet.start_worker()
    base = f"http://127.0.0.1:{fleet.environment['VQD_WORKER_METRICS_PORT']}"
    return lambda path: httpx.get(base + path, timeout=5)


def test_a_ready_worker_is_alive_ready_and_counted(ask: Ask) -> None:
    assert ask("/healthz").json() == {"status": "alive"}
    assert ask("/readyz").json() == {"status": "ready"}
    assert "vqd_busy_seconds_total" in ask("/metrics").text


def test_no_web_page_reads_it_by_a_name_of_its_own(fleet: Fleet, ask: Ask) -> None:
    """DNS rebinding: the page's name leads to our address, and the browser sends that name."""
    until(lambda: ask("/healthz").status_code == 200)
    url = f"http://127.0.0.1:{fleet.environment['VQD_WORKER_METRICS_PORT']}/metrics"
    assert httpx.get(url, headers={"Host": "rebind.evil.example"}).status_code == 400
    assert httpx.get(url, headers={"Host": "localhost"}).status_code == 200


def test_a_worker_whose_triton_hangs_lives_and_says_why_it_is_not_ready(fleet: Fleet, ask: Ask) -> None:
    fleet.triton.hang()
    until(lambda: ask("/readyz").status_code == 503, limit_s=20)
    assert "Triton" in ask("/readyz").json()["detail"]
    assert ask("/healthz").status_code == 200
    fleet.background.loop.call_soon_threadsafe(fleet.triton.resume)
    until(lambda: ask("/readyz").status_code == 200, limit_s=20)


def test_a_worker_without_redis_lives_and_says_why_it_is_not_ready(redis: RedisServer, ask: Ask) -> None:
    redis.stop()
    answer = ask("/readyz")
    assert answer.status_code == 503
    assert "Redis" in answer.json()["detail"]
    assert ask("/healthz").status_code == 200
    redis.start()
    until(lambda: ask("/readyz").status_code == 200, limit_s=20)


def test_a_worker_that_was_told_to_stop_ends_with_its_port_open(fleet: Fleet, ask: Ask) -> None:
    assert ask("/readyz").status_code == 200
    (process,) = fleet.workers
    process.terminate()
    assert process.wait(10) == 0, fleet.logs()


def test_a_taken_port_is_named(fleet: Fleet) -> None:
    with socket.create_server(("127.0.0.1", int(fleet.environment["VQD_WORKER_METRICS_PORT"]))):
        process = fleet.start_worker(ready=False)
        assert process.wait(30) == 1
    assert fleet.logs().splitlines()[-1].startswith("vqd: VQD_WORKER_METRICS_PORT=")


async def die() -> None:
    raise RuntimeError("died")


async def outlive_cancellation(until: asyncio.Event) -> None:
    while not until.is_set():
        try:
            await until.wait()
        except asyncio.CancelledError:
            continue


@pytest.fixture
async def inside(redis_url: str, tmp_path: Path) -> AsyncIterator[tuple[Worker, httpx.AsyncClient]]:
    """A worker in this process that does not run yet, and who asks it."""
    settings = Settings(redis_url=redis_url)
    write_repository(tmp_path)
    _, tokenizer = read_repository(tmp_path)
    store, triton, metrics = Store.connect(settings), TritonClient("127.0.0.1:1"), WorkerMetrics(CollectorRegistry())
    worker = Worker("inside", settings, store, triton, MODEL, tokenizer, metrics, Tracer())
    transport = httpx.ASGITransport(status_app(worker, metrics, "127.0.0.1"))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield worker, client
    await store.close()
    await triton.close()


@pytest.mark.anyio
async def test_a_worker_that_drains_is_not_ready(inside: tuple[Worker, httpx.AsyncClient]) -> None:
    worker, client = inside
    worker.health.trouble = None
    assert (await client.get("/readyz")).status_code == 200
    worker.stop()
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["detail"]) == (503, "draining")


@pytest.mark.anyio
async def test_a_worker_that_cannot_end_after_a_death_does_not_call_itself_alive(
    inside: tuple[Worker, httpx.AsyncClient],
) -> None:
    worker, client = inside
    worker.parts["report"] = die
    worker.parts["recover"] = partial(outlive_cancellation, worker.health.stopping)
    assert (await client.get("/healthz")).status_code == 200
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(10):
        while (answer := await client.get("/healthz")).status_code == 200:
            await asyncio.sleep(0.01)
    assert "worker report" in answer.json()["detail"]
    assert not running.done()
    worker.stop()
    with pytest.raises(ExceptionGroup):
        await running
