"""A real gateway on a free port and a tiny real worker, for the gateway's tests."""

import asyncio
import functools
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from both_sides import JobQueue
from samples import make_parameters

from service.gateway.app import create_app
from service.gateway.server import Server, limits_of
from service.messages import Event, Failure, ImageInfo, Result, Status, Timings
from service.provenance.origin import Origin
from service.provenance.request import request_of
from service.queue.leases import Lease
from service.serving import ModelInfo, Range, WorkerInfo
from service.settings import Settings
from service.sockets import open_server
from service.telemetry.metrics import running_version
from service.worker.images import encode_image

TOKENS = 64
TEXT_TOKENS = 5
DESCRIPTORS = 10_000
VERSION = running_version()
DEFAULTS = make_parameters(tokens_per_step=16)
RANGES = {
    "guidance_scale": Range(minimum=0, maximum=20),
    "purity_r": Range(minimum=0, maximum=10),
    "tokens_per_step": Range(minimum=1, maximum=TOKENS),
    "steps": Range(minimum=1, maximum=100),
    "truncation_rate": Range(minimum=0.01, maximum=1),
    "temperature": Range(minimum=0.01, maximum=5),
    "n": Range(minimum=1, maximum=4),
}
MODEL = ModelInfo(
    name="shapes",
    sha256="ab" * 32,
    description="coloured shapes",
    licence="MIT",
    attributions=("nobody",),
    tokens=TOKENS,
    codes=256,
    image_width=64,
    image_height=64,
    text_positions=16,
    timesteps=100,
    prompt_template="{prompt}",
    defaults=DEFAULTS,
    ranges=RANGES,
    samplers=("purity", "uniform", "ancestral"),
    edits=True,
)
TIMINGS = Timings(queue_s=0.1, encode_s=0.1, steps_s=0.2, decode_s=0.1, total_s=0.5)


def until(condition: Callable[[], Any], limit_s: float = 10.0, pause_s: float = 0.01) -> Any:
    """What ``condition`` returns once it is true; fails after ``limit_s``."""
    give_up_s = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < give_up_s, f"not within {limit_s} s"
        time.sleep(pause_s)
    return value


def draw(lease: Lease, model: ModelInfo, info: ImageInfo) -> bytes:
    """One colour, by seed and picture, in a file that says what it is."""
    job = lease.job
    pixels = np.full((8, 8, 3), ((int(info.tokens_sha256, 16)) % 256, 0, 0), np.uint8)
    made = {"version": VERSION, "model_sha256": model.sha256, "dtype": model.dtype, "backend": "python"}
    origin = Origin(**made, tokens_sha256=info.tokens_sha256, request=request_of(job, info.index))
    return encode_image(pixels, job.parameters.format, origin if job.metadata else None)


@functools.cache
def background_loop() -> asyncio.AbstractEventLoop:
    """In a thread, and never closed: gRPC may have a last word for it when a test is over."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


class Background:
    """Coroutines on an event loop in another thread, one for all."""

    def __init__(self) -> None:
        self.loop = background_loop()

    def call(self, work: Coroutine[Any, Any, Any], limit_s: float = 15.0) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(limit_s)


class TinyWorker:
    """Registers, takes jobs, reports progress, draws one colour.

    ``hold``: do not finish; ``silent``: nor renew. ``failure``: fail with it.
    """

    def __init__(self, settings: Settings, model: ModelInfo = MODEL, name: str = "tiny") -> None:
        self.background, self.model, self.name = Background(), model, name
        self.queue = JobQueue.connect(settings)
        self.hold, self.silent, self.state = threading.Event(), threading.Event(), "ready"
        self.failure: Failure | None = None
        self.warnings: tuple[str, ...] = ()
        self.detail = "as told"
        self.passes_per_s: float | None = None
        self.taken: list[str] = []
        self.ended: dict[str, Status] = {}
        self.background.call(self.announce())
        self.work: asyncio.Task[None] = self.background.call(self.begin())

    async def begin(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.loop())

    async def announce(self) -> None:
        told = {"state": self.state, "detail": self.detail, "passes_per_s": self.passes_per_s}
        info = WorkerInfo.model_validate({"id": self.name, "model": self.model, **told})
        await self.queue.register(info, 60_000)

    async def loop(self) -> None:
        while True:
            for lease in await self.queue.take(self.model.name, self.name, 8, block_ms=200):
                self.taken.append(lease.job.id)
                self.ended[lease.job.id] = await self.run(lease)

    async def run(self, lease: Lease) -> Status:
        if self.failure:
            await self.queue.fail(lease, self.failure)
            return Status.FAILED
        if not await self.report(lease, 1):
            return Status.CANCELLED
        while self.hold.is_set():
            if not self.silent.is_set() and not await self.queue.renew(lease):
                await self.queue.cancelled(lease)
                return Status.CANCELLED
            await asyncio.sleep(0.01)
        if not await self.report(lease, 2):
            return Status.CANCELLED
        wanted = lease.job.parameters
        seed, n = wanted.seed, wanted.n
        images = tuple(
            ImageInfo(index=place, seed=seed, tokens_sha256=f"{seed + image:064x}")
            for place, image in enumerate(wanted.images)
        )
        made = {
            "evaluations": 4 * n,
            "timings": TIMINGS,
            "warnings": self.warnings,
            "text_tokens": TEXT_TOKENS,
            "dtype": self.model.dtype,
            "backend": "python",
            "model_sha256": self.model.sha256,
            "version": VERSION,
        }
        result = Result(images=images, evaluations_repeated=0, **made)
        await self.queue.complete(lease, result, [draw(lease, self.model, info) for info in images])
        return Status.SUCCEEDED

    async def report(self, lease: Lease, evaluation: int) -> bool:
        event = Event(evaluation=evaluation, evaluations=4, committed=evaluation / 4, status=Status.RUNNING)
        if await self.queue.progress(lease, event, None):
            return True
        await self.queue.cancelled(lease)
        return False

    def turn(self, state: str) -> None:
        self.state = state
        self.background.call(self.announce())

    def stop(self) -> None:
        """From here on it takes nothing and does nothing, but it stays registered."""
        self.background.call(self.stopped())

    async def stopped(self) -> None:
        self.work.cancel()
        await asyncio.wait([self.work])
        if not self.work.cancelled():
            self.work.exception()  # a test has taken Redis away from it

    def close(self) -> None:
        self.stop()
        self.background.call(self.queue.close())


class RunningGateway:
    """A gateway served by uvicorn in a thread."""

    def __init__(self, settings: Settings) -> None:
        self.socket = open_server("127.0.0.1", 0)
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        app = create_app(settings)
        self.gateway = app.state.gateway
        self.limits = limits_of(settings, DESCRIPTORS)
        self.server = Server(app, self.limits, shutdown_s=5)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()
        until(lambda: self.server.started or not self.thread.is_alive())
        assert self.server.started
        self.http = httpx.Client(base_url=self.url, timeout=30)

    def serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self.server.serve([self.socket]))

    def background_call(self, action: Callable[[], None]) -> None:
        """Run ``action`` on the server's event loop."""
        self.loop.call_soon_threadsafe(action)

    def ask(self, **fields: object) -> httpx.Response:
        """POST /generate with a prompt and these fields."""
        return self.http.post("/generate", json={"prompt": "a red circle"} | fields)

    def start(self, headers: dict[str, str] | None = None, **fields: object) -> str:
        """Start a job; returns its id."""
        asked = {"Prefer": "respond-async"} | (headers or {})
        response = self.http.post("/generate", json={"prompt": "a red circle"} | fields, headers=asked)
        assert response.status_code in (200, 202), response.text  # it may be done by the time of the answer
        return str(response.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.http.get(f"/jobs/{job_id}").json()
        return answer

    def metric(self, line: str) -> float:
        """The value of one sample of /metrics; 0 when it is not there."""
        lines = self.http.get("/metrics").text.splitlines()
        return next((float(found.rpartition(" ")[2]) for found in lines if found.startswith(line + " ")), 0.0)

    def close(self) -> None:
        self.http.close()
        self.server.should_exit = True
        self.thread.join(15)
        assert not self.thread.is_alive()


@pytest.fixture(name="settings")
def gateway_settings(redis_url: str) -> Settings:
    """Patient: a busy machine is no fault of Redis, nor of a worker."""
    return Settings(redis_url=redis_url, redis_timeout_s=5.0, sync_wait_s=20, max_body_bytes=4096, lease_ms=60_000)


@pytest.fixture(name="gateway")
def running_gateway(settings: Settings) -> Iterator[RunningGateway]:
    running = RunningGateway(settings)
    yield running
    running.close()


@pytest.fixture(name="worker")
def tiny_worker(settings: Settings, gateway: RunningGateway) -> Iterator[TinyWorker]:
    tiny = TinyWorker(settings)
    until(lambda: gateway.http.get("/readyz").status_code == 200)
    yield tiny
    tiny.close()
