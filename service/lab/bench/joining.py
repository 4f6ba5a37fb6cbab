"""How soon a request is computed that arrives while others run: a real worker whose calls are noted."""

import asyncio
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client import CollectorRegistry
from tqdm import tqdm

from service.lab.bench.cases import Fields, plain
from service.lab.bench.load import ask
from service.local.supervisor import Supervisor
from service.queue.store import Store
from service.settings import Settings, read_settings
from service.telemetry.metrics import WorkerMetrics
from service.telemetry.tracing import Share, Tracer
from service.triton.client import TritonClient
from service.triton.repository import read_repository
from service.worker.traces import STEP_SPAN
from service.worker.worker import Worker

BACKGROUND = 4
"""Long requests that keep the worker busy while others arrive."""


@dataclass(frozen=True)
class Started:
    """A step call: when it began (milliseconds of the clock that Redis has, too) and whose rows it carried."""

    at_ms: float
    jobs: frozenset[str]


class NotingTracer(Tracer):
    """Notes every step call of a worker, in order, where others would write a span."""

    def __init__(self) -> None:
        self.calls: list[Started] = []

    @contextmanager
    def during(self, name: str, shares: Iterable[Share]) -> Iterator[None]:
        if name == STEP_SPAN:
            self.calls.append(Started(1000 * time.time(), frozenset(job.id for job, _ in shares)))
        yield


def calls_until_first(calls: Sequence[Started], job: str, admitted_ms: float) -> int:
    """Step calls that began after the admission, up to the first that carried the job: 1 is the very next one.

    Redis cuts ``admitted_ms`` to whole milliseconds, so a call within that one counts, too: never less than true.
    """
    later = [call for call in calls if call.at_ms >= admitted_ms]
    return next(number for number, call in enumerate(later, start=1) if job in call.jobs)


async def keep_busy(client: httpx.AsyncClient, steps: int) -> None:
    """One long request after another."""
    for number in itertools.count(1_000_000):
        [fields] = plain(1, first=number)
        (await ask(client, 0, fields | {"steps": steps}, 0.0)).require()


async def arrivals(client: httpx.AsyncClient, cases: Sequence[Fields], bar: "tqdm[None]") -> list[tuple[str, float]]:
    """Job id and admission of requests that come one by one, at all phases of the calls under way."""
    seen = []
    for number, fields in enumerate(cases):
        await asyncio.sleep(0.013 * (number % 10))
        answer = (await ask(client, number, fields, 0.0)).require()
        seen.append((answer["id"], float(answer["started_ms"])))
        bar.update()
    return seen


async def drive(worker: Worker, supervisor: Supervisor, count: int, steps: int) -> list[tuple[str, float]]:
    """Run the worker inside this process, load it, and drain it."""
    running = asyncio.create_task(worker.run())
    ready = asyncio.create_task(asyncio.to_thread(supervisor.wait_ready))
    try:
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running
        await ready
        async with httpx.AsyncClient(base_url=supervisor.url, timeout=120, trust_env=False) as client:
            others = [asyncio.create_task(keep_busy(client, steps)) for _ in range(BACKGROUND)]
            with tqdm(total=count, desc="arrivals", unit="req", leave=False) as bar:
                seen = await arrivals(client, plain(count), bar)
            for other in others:
                other.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*others)
    finally:
        worker.stop()
        await running
    return seen


async def watch(supervisor: Supervisor, settings: Settings, count: int) -> list[int]:
    """A worker on the supervisor's Redis and Triton, and what was noted of ``count`` arrivals."""
    info, tokenizer = read_repository(settings.repository)
    store, triton = Store.connect(settings), TritonClient(settings.triton_url, settings.triton_timeout_s)
    metrics, noting = WorkerMetrics(CollectorRegistry()), NotingTracer()
    worker = Worker("bench-worker", settings, store, triton, info, tokenizer, metrics, noting)
    try:
        seen = await drive(worker, supervisor, count, min(info.tokens, info.timesteps))
    finally:
        await store.close()
        await triton.close()
    return [calls_until_first(noting.calls, job, admitted_ms) for job, admitted_ms in seen]


def measure_joining(repository: Path, folder: Path, count: int) -> list[int]:
    """For each of ``count`` arrivals: which call after its admission was the first that carried it."""
    supervisor = Supervisor(read_settings(port=0, repository=repository), folder)
    supervisor.parts = [part for part in supervisor.parts if part.name != "worker"]
    with supervisor:
        places = {
            "redis_url": supervisor.environment["VQD_REDIS_URL"],
            "triton_url": supervisor.environment["VQD_TRITON_URL"],
        }
        return asyncio.run(watch(supervisor, read_settings(repository=repository, **places), count))
