"""What an API key that floods costs another key: its times alone, and beside ten times what the service can do."""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from service.client.address import authorization, heeds_proxies
from service.errors import Unavailable
from service.lab.bench.arrivals import poisson, unlike
from service.lab.bench.cases import Fields, plain
from service.lab.bench.load import Reply, press, summary
from service.lab.bench.statistics import quantile

CLIENTS = 16
WARM_UP = 32
POLITE_SHARE, FLOOD_SHARE = 0.2, 10.0
"""Of what the service can do."""
CONNECTIONS = 200
"""Of the flood; more of its requests wait for one of them, which is not counted, and are not made once it is over."""


@dataclass
class Flood:
    """What became of the requests of the key that floods. ``refusals_s``: how long each refusal took."""

    answers: Counter[int] = field(default_factory=Counter)
    refusals_s: list[float] = field(default_factory=list)
    without_retry_after: int = 0
    jobs: list[str] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONNECTIONS))
    """httpx goes through all that wait for a connection, for each that comes and each that goes: thousands stop it."""

    async def ask(self, client: httpx.AsyncClient, fields: Fields) -> None:
        async with self.places:
            if not self.over.is_set():
                await self.post(client, fields)

    async def post(self, client: httpx.AsyncClient, fields: Fields) -> None:
        began = time.perf_counter()
        try:
            response = await client.post("/generate", json=fields, headers={"Prefer": "respond-async"})
        except httpx.TransportError:
            self.answers[0] += 1
            return
        self.answers[response.status_code] += 1
        if response.status_code == httpx.codes.ACCEPTED:
            self.jobs.append(response.json()["id"])
        elif response.is_error:
            self.refusals_s.append(time.perf_counter() - began)
            self.without_retry_after += "Retry-After" not in response.headers

    async def run(self, client: httpx.AsyncClient, rate: float) -> None:
        """Ask so many times a second, whether or not there are answers, until it is over; then wait for those."""
        async with asyncio.TaskGroup() as asking:
            start = time.perf_counter()
            for number, fields in enumerate(endless()):
                if self.over.is_set():
                    break
                await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
                asking.create_task(self.ask(client, fields))

    async def withdraw(self, client: httpx.AsyncClient) -> None:
        for job in self.jobs:  # most are over by now
            with contextlib.suppress(httpx.TransportError):
                await client.delete(f"/jobs/{job}")

    def summary(self) -> dict[str, Any]:
        shares = (0.5, 0.99) if self.refusals_s else ()
        return {
            "requests": self.answers.total(),
            "answers": {str(status): count for status, count in sorted(self.answers.items())},
            "refusals": {f"p{round(100 * q)}_ms": 1000 * quantile(self.refusals_s, q) for q in shares},
            "refusals_without_retry_after": self.without_retry_after,
        }


def endless() -> Iterator[Fields]:
    cases = unlike(plain(1000))
    while True:
        yield from cases


def shown(replies: Sequence[Reply]) -> dict[str, Any]:
    wanted = ("requests", "succeeded", "p50_s", "p95_s", "max_s", "errors")
    return {name: value for name, value in summary(replies).items() if name in wanted}


async def measure(url: str, polite_key: str, flood_key: str, requests: int) -> dict[str, Any]:
    cases = unlike(plain(requests))
    for count in (WARM_UP, requests):
        replies = await press(url, unlike(plain(count)), CLIENTS, api_key=polite_key)
        for reply in replies:
            reply.require()
    capacity = requests / (max(reply.ended for reply in replies) - min(reply.began for reply in replies))
    due = poisson(POLITE_SHARE * capacity, requests)
    alone = await press(url, cases, None, due, api_key=polite_key)
    flood, limits = Flood(), httpx.Limits(max_connections=CONNECTIONS)
    headers, proxies = authorization(flood_key), heeds_proxies(url)
    async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=60, trust_env=proxies) as client:
        flooding = asyncio.create_task(flood.run(client, FLOOD_SHARE * capacity))
        try:
            beside = await press(url, cases, None, due, api_key=polite_key)
        finally:
            flood.over.set()
            await flooding  # a request cancelled on its way leaves its connection, and a job that nobody knows of
        await flood.withdraw(client)
    return {
        "capacity_per_second": capacity,
        "seconds": due[-1],
        "polite_alone": shown(alone),
        "polite_beside_the_flood": shown(beside),
        "flood": flood.summary(),
    }


def flood_test(url: str, polite_key: str, flood_key: str, requests: int) -> str:
    """Press a running service with two keys; returns what both saw, as JSON. Raises Unavailable when none answers."""
    try:
        return json.dumps(asyncio.run(measure(url, polite_key, flood_key, requests)), indent=2)
    except httpx.TransportError as error:
        raise Unavailable(f"no service answers at {url}: {error}") from error
