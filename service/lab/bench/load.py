"""Load on a running service: many clients at once, every answer timed, every error counted by its name."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from tqdm import tqdm

from service.client.address import authorization, heeds_proxies
from service.client.answers import error_of
from service.errors import Unavailable
from service.lab.bench.cases import Fields, plain
from service.lab.bench.statistics import quantile

TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Reply:
    """One request's end. Times from ``time.perf_counter``; ``began`` is when it was due, whenever it got through."""

    index: int
    began: float
    ended: float
    answer: dict[str, Any] | None
    error: str | None = None

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    def require(self) -> dict[str, Any]:
        """The answer. Raises Unavailable with the error when there is none."""
        if self.answer is None:
            raise Unavailable(f"the service gave no picture: {self.error}")
        return self.answer


async def ask(client: httpx.AsyncClient, index: int, fields: Fields, began: float) -> Reply:
    """One synchronous POST /generate; JSON with the picture in it."""
    try:
        response = await client.post("/generate", json=fields)
    except httpx.TransportError as error:
        return Reply(index, began, time.perf_counter(), None, type(error).__name__)
    ended = time.perf_counter()
    if response.status_code == httpx.codes.OK:
        return Reply(index, began, ended, response.json())
    if response.is_error:
        return Reply(index, began, ended, None, f"{response.status_code} {error_of(response)}")
    return Reply(index, began, ended, None, f"{response.status_code} not finished within the service's limit")


async def press(
    url: str,
    cases: Sequence[Fields],
    concurrency: int | None,
    due: Sequence[float] | None = None,
    on_reply: Callable[[Reply], object] = lambda _: None,
    api_key: str = "",
) -> list[Reply]:
    """Send all ``cases``, at most ``concurrency`` at a time (None: however many); in their order, replies likewise.

    ``due``: the second at which each is due, whether or not earlier ones are answered, and waiting for a free client
    counts as latency; None: each client sends its next when it has its answer.
    """
    places = asyncio.Semaphore(concurrency or len(cases))
    limits, proxies = httpx.Limits(max_connections=concurrency), heeds_proxies(url)
    start = time.perf_counter()

    async def one(client: httpx.AsyncClient, index: int) -> Reply:
        due_s = start + due[index] if due else None
        if due_s:
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        async with places:
            reply = await ask(client, index, cases[index], due_s or time.perf_counter())
        on_reply(reply)
        return reply

    async with httpx.AsyncClient(
        base_url=url, headers=authorization(api_key), limits=limits, timeout=TIMEOUT_S, trust_env=proxies
    ) as client:
        await client.get("/healthz")  # the first connection is not part of the first request
        start = time.perf_counter()
        return await asyncio.gather(*(one(client, index) for index in range(len(cases))))


def pictures_per_second(replies: Sequence[Reply]) -> float:
    """From the first request's start to the last answer."""
    span = max(reply.ended for reply in replies) - min(reply.began for reply in replies)
    return sum(len(reply.answer["images"]) for reply in replies if reply.answer) / span


def summary(replies: Sequence[Reply]) -> dict[str, Any]:
    """What a load test is about."""
    good = [reply.seconds for reply in replies if reply.answer]
    latency = {f"p{round(100 * q)}_s": quantile(good, q) for q in (0.5, 0.9, 0.95, 0.99)} if good else {}
    return {
        "requests": len(replies),
        "succeeded": len(good),
        "pictures_per_second": pictures_per_second(replies),
        **latency,
        **({"max_s": max(good)} if good else {}),
        "errors": dict(Counter(reply.error for reply in replies if reply.error)),
    }


def load_test(url: str, requests: int, concurrency: int, rate: float | None = None, api_key: str = "") -> str:
    """Press a running service; returns the summary as JSON. Raises Unavailable when nothing answers there."""
    due = [index / rate for index in range(requests)] if rate else None
    with tqdm(total=requests, desc="requests", unit="req", leave=False) as bar:
        try:
            replies = asyncio.run(press(url, plain(requests), concurrency, due, lambda _: bar.update(), api_key))
        except httpx.TransportError as error:
            raise Unavailable(f"no service answers at {url}: {error}") from error
    return json.dumps(summary(replies), indent=2)
