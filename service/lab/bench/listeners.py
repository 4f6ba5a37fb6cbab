"""What it costs that many follow jobs: memory, processor, and how long an event takes to reach its listener."""

import asyncio
import json
import time
from collections.abc import Sequence

from service.errors import Unavailable
from service.lab.bench.costs import Load, Spent, idle, posts, require, spend
from service.lab.bench.report import Line
from service.lab.bench.stand import MODEL, Stand
from service.lab.bench.statistics import quantile
from service.lab.bench.wire import Listener, Wire, ask_in_turn, connected, request
from service.messages import Event, Status
from service.queue.claims import Claims
from service.queue.leases import Lease, Leases
from service.queue.store import Store

EVENTS_PER_S = 200
"""Of jobs that have a listener each; a job that has all of them has one every ``PAUSE_S``."""
PAUSE_S = 0.5
HEARD_LIMIT_S = 30.0


class Followed:
    """Jobs that we run, and who listens to each of them."""

    def __init__(self, store: Store) -> None:
        self.leases = Leases(store)
        self.claims = Claims(self.leases)
        self.listeners: list[tuple[Lease, Listener]] = []

    async def begin(self, stand: Stand, jobs: int) -> list[Lease]:
        """Start ``jobs``, take them, and say the first thing of each."""
        async with connected(stand.port, 1, Wire) as wires:
            answers = require(await ask_in_turn(wires, posts(jobs, 10**7, "Prefer: respond-async")), 202)
        taken = [lease for _ in answers for lease in await self.claims.take(MODEL.name, "bench", jobs, block_ms=0)]
        ids = {json.loads(body)["id"] for _, body in answers}
        assert {lease.job.id for lease in taken} == ids
        await self.leases.progress_all([(lease, progress(1), None) for lease in taken])
        return taken

    async def listen(self, taken: Sequence[Lease], crowd: Sequence[Listener]) -> None:
        """Each to one of the jobs, as evenly as it goes."""
        for number, listener in enumerate(crowd):
            lease = taken[number % len(taken)]
            listener.transport.write(request("GET", f"/jobs/{lease.job.id}/events"))
            self.listeners.append((lease, listener))
        await self.until_heard(1)

    async def until_heard(self, evaluation: int) -> None:
        """Raises Unavailable when somebody does not hear it."""
        give_up_s = time.perf_counter() + HEARD_LIMIT_S
        while missing := sum(evaluation not in listener.heard for _, listener in self.listeners):
            if time.perf_counter() > give_up_s:
                raise Unavailable(f"{missing} of {len(self.listeners)} listeners did not hear event {evaluation}")
            await asyncio.sleep(0.05)

    async def announce(self, evaluation: int, pause_s: float) -> list[float]:
        """One event of each job, one after another → how long each took to each of its listeners, ms."""
        told: dict[str, float] = {}
        for lease in {lease.job.id: lease for lease, _ in self.listeners}.values():
            told[lease.job.id] = time.perf_counter()
            await self.leases.progress(lease, progress(evaluation), None)
            await asyncio.sleep(pause_s)
        await self.until_heard(evaluation)
        return [1000 * (one.heard[evaluation] - told[lease.job.id]) for lease, one in self.listeners]

    async def end(self) -> None:
        for lease in {lease.job.id: lease for lease, _ in self.listeners}.values():
            await self.leases.cancelled(lease)


def progress(evaluation: int) -> Event:
    return Event(evaluation=evaluation, evaluations=1000, committed=evaluation / 1000, status=Status.RUNNING)


async def measure_crowd(stand: Stand, store: Store, load: Load, jobs: int) -> list[Line]:
    followed, delays, spent, before = Followed(store), list[list[float]](), list[Spent](), stand.usage()
    what = f"{load.listeners:,} listeners of {'one job' if jobs == 1 else 'a job of their own each'}"

    async def tell(evaluation: int) -> None:
        delays.append(await followed.announce(evaluation, PAUSE_S if jobs == 1 else 1 / EVENTS_PER_S))

    taken = await followed.begin(stand, jobs)
    async with connected(stand.port, load.listeners, Listener) as crowd:
        await followed.listen(taken, crowd)
        begun = Spent(before, stand.usage(), 1.0, load.listeners)
        at_rest = await idle(stand, what, load.idle_s)
        for evaluation in range(2, 2 + (load.events if jobs == 1 else 2)):
            spent.append(await spend(stand, tell(evaluation), load.listeners))
        await followed.end()
    return [
        Line(f"{what}: memory of the gateway, each", "KiB", [begun.memory_kib("gateway")]),
        *at_rest,
        Line(f"{what}: an event's way to them, p50", "ms", [quantile(one, 0.5) for one in delays]),
        Line(f"{what}: an event's way to them, p95", "ms", [quantile(one, 0.95) for one in delays]),
        Line(f"{what}: CPU of the gateway for each that hears it", "ms", [one.cpu_ms("gateway") for one in spent]),
        Line(f"{what}: CPU of the redis for each that hears it", "ms", [one.cpu_ms("redis") for one in spent]),
    ]


async def measure_listeners_of_one(stand: Stand, store: Store, load: Load) -> list[Line]:
    """All follow one job."""
    return await measure_crowd(stand, store, load, jobs=1)


async def measure_listeners_of_many(stand: Stand, store: Store, load: Load) -> list[Line]:
    """Each follows a job of its own."""
    return await measure_crowd(stand, store, load, jobs=load.listeners)
