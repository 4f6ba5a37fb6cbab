"""What the gateway and its queue cost without a model: jobs that are accepted, kept, asked for, answered and
followed."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from service.lab.bench.bounds import facts, workplace
from service.lab.bench.costs import Load, Spent, alone_ms, costs, idle, posts, require, spend
from service.lab.bench.listeners import measure_listeners_of_many, measure_listeners_of_one
from service.lab.bench.report import Line, Report
from service.lab.bench.stand import MODEL, Stand
from service.lab.bench.wire import Answer, Wire, ask_in_turn, connected, request
from service.queue.registrations import Registrations
from service.queue.store import Store
from service.serving import WorkerInfo

CLIENTS = 16
ALONE = 50
LATER = "Prefer: respond-async"
REGISTERED_MS = 3_600_000
REPEATS = 5


async def in_portions(
    stand: Stand, wires: list[Wire], portions: list[list[bytes]], status: int
) -> tuple[list[Spent], list[Answer]]:
    """What each portion of requests cost, and all answers."""
    spent, got = list[Spent](), list[Answer]()

    async def ask(portion: list[bytes]) -> None:
        got.extend(await ask_in_turn(wires, portion))

    for portion in portions:
        spent.append(await spend(stand, ask(portion), len(portion)))
    require(got, status)
    return spent, got


async def measure_accepted(stand: Stand, store: Store, load: Load) -> list[Line]:
    """Jobs that nobody takes: accepted, kept, asked for."""
    async with connected(stand.port, CLIENTS, Wire) as wires:
        return await accept(stand, load, wires)


async def accept(stand: Stand, load: Load, wires: list[Wire]) -> list[Line]:
    await alone_ms(wires[0], posts(20, 10**6, LATER), 202)  # the first of everything is slow
    first_ms = await alone_ms(wires[0], posts(ALONE, 2 * 10**6, LATER), 202)
    size = load.jobs // load.portions
    spent, got = await in_portions(stand, wires, [posts(size, i * size, LATER) for i in range(load.portions)], 202)
    whole = Spent(spent[0].before, spent[-1].after, 1.0, len(got))
    redis_kib = (whole.after.redis_bytes - whole.before.redis_bytes) / len(got) / 1024
    many = f"{len(got):,} jobs that wait"
    last_ms = await alone_ms(wires[0], posts(ALONE, 3 * 10**6, LATER), 202)
    at_rest = await idle(stand, many, load.idle_s)
    polls = [request("GET", f"/jobs/{json.loads(body)['id']}") for _, body in got[:size]]
    polled, _ = await in_portions(stand, wires, [polls] * REPEATS, 200)
    return [
        *costs("Accepted job", spent, CLIENTS),
        Line("One more job, none waiting: time alone", "ms", first_ms),
        Line(f"One more job, {many}: time alone", "ms", last_ms),
        Line("Job that waits: memory of Redis", "KiB", [redis_kib]),
        Line("Job that waits: memory of the gateway", "KiB", [whole.memory_kib("gateway")]),
        *at_rest,
        *costs("Poll of a job that waits", polled, CLIENTS),
    ]


async def measure_waiting(stand: Stand, store: Store, load: Load) -> list[Line]:
    """Clients that wait for the answer of a job that nobody takes."""
    before, what = stand.usage(), f"{load.waiting:,} clients that wait for their picture"
    async with connected(stand.port, load.waiting, Wire) as wires:
        answers = [asyncio.ensure_future(w.ask(sent)) for w, sent in zip(wires, posts(load.waiting), strict=True)]
        await asyncio.sleep(load.idle_s)  # until all are accepted
        begun = Spent(before, stand.usage(), load.idle_s, load.waiting)
        at_rest = await idle(stand, what, load.idle_s)
        require([answer.result() for answer in answers if answer.done()], 200)  # none has ended
        for answer in answers:
            answer.cancel()
    return [Line(f"{what}: memory of the gateway, each", "KiB", [begun.memory_kib("gateway")]), *at_rest]


async def measure_answered(stand: Stand, store: Store, load: Load) -> list[Line]:
    """Pictures of the fake, each waited for by its client."""
    async with connected(stand.port, CLIENTS, Wire) as wires:
        require(await ask_in_turn(wires, posts(2 * CLIENTS)), 200)
        size = load.answered // REPEATS
        spent, _ = await in_portions(stand, wires, [posts(size, i * size) for i in range(REPEATS)], 200)
        alone = await alone_ms(wires[0], posts(min(size, ALONE)), 200)
    return [
        *costs("Answered job, fake Triton", spent, CLIENTS, "worker"),
        Line("Answered job, fake Triton: time alone", "ms", alone),
    ]


Measure = Callable[[Stand, Store, Load], Awaitable[list[Line]]]


async def measured(stand: Stand, measure: Measure, load: Load) -> list[Line]:
    """With the model registered, as by a worker that never takes a job."""
    store = Store.connect(stand.settings)
    try:
        await Registrations(store).register(WorkerInfo(id="nobody", model=MODEL, state="ready"), REGISTERED_MS)
        return await measure(stand, store, load)
    finally:
        await store.close()


def measure_gateway(load: Load) -> Report:
    """Everything, each with processes of its own. Raises SetupError or Unavailable when one does not do its work."""
    about, lines = facts(Path("none"), **vars(load)), list[Line]()
    without = (measure_accepted, measure_waiting, measure_listeners_of_one, measure_listeners_of_many)
    with workplace() as folder:
        for measure in (*without, measure_answered):
            with Stand(folder / measure.__name__, worker=measure is measure_answered).running() as stand:
                lines += asyncio.run(measured(stand, measure, load))
    return Report(lines, about)
