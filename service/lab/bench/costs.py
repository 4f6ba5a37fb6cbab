"""What work costs the processes of a stand: time, processor, memory, and what Redis was asked."""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

from service.errors import Unavailable
from service.lab.bench.cases import PROMPTS
from service.lab.bench.report import Line
from service.lab.bench.stand import Stand, Usage
from service.lab.bench.wire import Answer, Wire, request

KIB = 1024


@dataclass(frozen=True)
class Load:
    """How much of each thing. ``portions``: the jobs are accepted in so many measured portions."""

    jobs: int = 10_000
    portions: int = 10
    answered: int = 1_000
    waiting: int = 1_000
    listeners: int = 1_000
    events: int = 10
    idle_s: float = 15.0

    def fewer(self, times: int) -> "Load":
        """So many times fewer of everything, and at least a few."""
        sizes = {name: max(4, size // times) for name, size in vars(self).items() if name not in ("events", "idle_s")}
        return Load(**sizes, events=max(2, self.events // times), idle_s=self.idle_s / times)


@dataclass(frozen=True)
class Spent:
    """Between two readings of a stand, for ``count`` things."""

    before: Usage
    after: Usage
    seconds: float
    count: int

    @property
    def rate(self) -> float:
        return self.count / self.seconds

    @property
    def commands(self) -> float:
        """That Redis ran for each, those inside scripts counted one by one, and our own question not."""
        return (self.after.commands - self.before.commands - 1) / self.count

    def cpu_ms(self, name: str) -> float:
        """Milliseconds of processor that a process used for each."""
        return 1000 * (self.after.cpu_s[name] - self.before.cpu_s[name]) / self.count

    def cpu_percent(self, name: str) -> float:
        """Of one core."""
        return 100 * (self.after.cpu_s[name] - self.before.cpu_s[name]) / self.seconds

    def memory_kib(self, name: str) -> float:
        """By which a process grew for each."""
        return (self.after.rss[name] - self.before.rss[name]) / self.count / KIB


async def spend(stand: Stand, work: Awaitable[object], count: int) -> Spent:
    before, began = stand.usage(), time.perf_counter()
    await work
    seconds = time.perf_counter() - began
    return Spent(before, stand.usage(), seconds, count)


def costs(what: str, spent: Sequence[Spent], clients: int, *others: str) -> list[Line]:
    """``what`` is one thing, such as "accepted job"; ``others``: processes besides gateway and Redis."""
    return [
        Line(f"{what}: rate with {clients} clients", "per s", [one.rate for one in spent]),
        *(
            Line(f"{what}: CPU of the {name}", "ms", [one.cpu_ms(name) for one in spent])
            for name in ("gateway", "redis", *others)
        ),
        Line(f"{what}: commands that Redis runs", "", [one.commands for one in spent]),
    ]


async def idle(stand: Stand, what: str, seconds: float) -> list[Line]:
    """What it costs that time goes by."""
    spent = await spend(stand, asyncio.sleep(seconds), 1)
    return [
        *(
            Line(f"{what}, idle: CPU of the {name}", "% of a core", [spent.cpu_percent(name)])
            for name in ("gateway", "redis")
        ),
        Line(f"{what}, idle: commands that Redis runs", "per s", [spent.commands / spent.seconds]),
    ]


def posts(count: int, first: int = 0, *headers: str) -> list[bytes]:
    """So many different requests for a picture."""
    numbers = range(first, first + count)
    bodies = ({"prompt": PROMPTS[number % len(PROMPTS)], "seed": number} for number in numbers)
    return [request("POST", "/generate", body, *headers) for body in bodies]


def require(answers: Sequence[Answer], status: int) -> Sequence[Answer]:
    """Raises Unavailable when one is another: its cost would be no figure of ours."""
    for found, body in answers:
        if found != status:
            raise Unavailable(f"the gateway answered {found} in place of {status}: {body[:200].decode()}")
    return answers


async def alone_ms(wire: Wire, requests: Sequence[bytes], status: int) -> list[float]:
    """How long each takes, one after another."""
    times = []
    for sent in requests:
        began = time.perf_counter()
        require([await wire.ask(sent)], status)
        times.append(1000 * (time.perf_counter() - began))
    return times
