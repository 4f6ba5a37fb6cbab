"""What the queue's tests share: jobs, queues that close themselves, waiting, and a proxy that loses replies."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

from both_sides import JobQueue
from samples import make_parameters

from service.errors import RedisUnavailable
from service.messages import Checkpoint, Event, ImageInfo, Job, Priority, Result, RowState, Status, Timings
from service.serving import ModelInfo, WorkerInfo
from service.settings import Settings, read_settings

MODEL = "reference"
EVALUATIONS = 10
Answer = TypeVar("Answer")
numbers = itertools.count(1)


def make_job(priority: Priority = Priority.INTERACTIVE, deadline_ms: int | None = None, job_id: str = "") -> Job:
    parameters = make_parameters(steps=EVALUATIONS, seed=7, n=2)
    return Job(
        id=job_id or f"job-{next(numbers)}",
        model=MODEL,
        prompt="a red square \u2603",
        negative_prompt=None,
        parameters=parameters,
        priority=priority,
        deadline_ms=deadline_ms,
    )


def make_result() -> Result:
    timings = Timings(queue_s=0.1, encode_s=0.1, steps_s=0.5, decode_s=0.1, total_s=0.8)
    images = tuple(ImageInfo(index=index, seed=7, tokens_sha256=f"{index:064x}") for index in range(2))
    return Result(images=images, evaluations=EVALUATIONS, evaluations_repeated=0, timings=timings)


def progress_event(evaluation: int) -> Event:
    committed = evaluation / EVALUATIONS
    return Event(evaluation=evaluation, evaluations=EVALUATIONS, committed=committed, status=Status.RUNNING)


def checkpoint_at(evaluation: int) -> Checkpoint:
    return Checkpoint(rows=(RowState(evaluation=evaluation, tokens="AAECAw=="),))


def worker_info(worker_id: str) -> WorkerInfo:
    model = ModelInfo(
        name=MODEL,
        sha256="0" * 64,
        description="",
        licence="",
        attributions=(),
        tokens=64,
        codes=128,
        image_width=32,
        image_height=32,
        text_positions=16,
        timesteps=100,
        prompt_template="{}",
        defaults=make_job().parameters,
        ranges={},
        samplers=("purity",),
    )
    return WorkerInfo(id=worker_id, model=model, state="ready")


def settings_for(url: str, **overrides: object) -> Settings:
    """Patient by default: a busy machine is no fault of Redis."""
    return read_settings(**{"redis_url": url, "redis_timeout_s": 5.0, **overrides})


@asynccontextmanager
async def opened(url: str, **overrides: object) -> AsyncIterator[JobQueue]:
    """A queue with settings of its own, closed at the end."""
    queue = JobQueue.connect(settings_for(url, **overrides))
    try:
        yield queue
    finally:
        await queue.close()


async def eventually(read: Callable[[], Awaitable[Answer]], limit_s: float = 5.0) -> Answer:
    """The first true answer of ``read``; fails when there is none in time."""
    until_s = time.monotonic() + limit_s
    while not (answer := await read()):
        assert time.monotonic() < until_s, f"nothing within {limit_s} s"
        await asyncio.sleep(0.02)
    return answer


async def reached(queue: JobQueue) -> None:
    """Where Redis is has been found out, which a busy machine may not do in a short time."""

    async def answers() -> bool:
        with suppress(RedisUnavailable):
            await queue.ping()
            return True
        return False

    await eventually(answers, limit_s=20)


async def idle_ms(queue: JobQueue, stream: str, entry_id: str) -> int:
    rows: Any = await queue.redis.xpending_range(stream, "workers", entry_id, entry_id, 1)
    return int(rows[0]["time_since_delivered"])


class LossyProxy:
    """Between a client and Redis: once armed, loses the replies of the next commands that hold ``needle``."""

    def __init__(self, redis_url: str) -> None:
        target = urlsplit(redis_url)
        self.host, self.port = target.hostname, target.port
        self.needle, self.to_lose, self.lost = b"", 0, 0
        self.serving: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/0"

    def lose_reply(self, needle: bytes, times: int = 1) -> None:
        self.needle, self.to_lose = needle, times

    async def __aenter__(self) -> "LossyProxy":
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        await self.server.wait_closed()
        for task in self.serving:
            task.cancel()
        await asyncio.gather(*self.serving, return_exceptions=True)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.add(asyncio.create_task(self.serve(reader, writer)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(self.host, self.port)
        losing = asyncio.Event()

        async def commands() -> None:
            while data := await reader.read(1 << 16):
                if self.to_lose and self.needle in data:
                    self.to_lose -= 1
                    losing.set()
                upstream_writer.write(data)
                await upstream_writer.drain()
            upstream_writer.close()

        async def replies() -> None:
            while data := await upstream_reader.read(1 << 16):
                if losing.is_set():
                    self.lost += 1
                    break
                writer.write(data)
                await writer.drain()
            writer.close()

        sending = asyncio.create_task(commands())
        try:
            await replies()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            upstream_writer.close()
            writer.close()
