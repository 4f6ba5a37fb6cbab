"""Eight requests at once: the service beside a bare loop over the same modules and beside diffusers, round by round."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from tqdm import tqdm

from service.diffusion.samplers import effort_of
from service.lab.bench.bare import Bare
from service.lab.bench.cases import Fields, plain
from service.lab.bench.live import LiveService
from service.lab.bench.load import Reply, pictures_per_second, press
from service.lab.bench.peer import Peer
from service.lab.bench.report import Line

AT_ONCE = 8
SIZES = (1, 2, 4, 8, 16)
"""Batch sizes that the bare loop tries; the service is held against the one with the best median."""
PICTURES = 16
"""At least so many per thing measured and round."""


@dataclass(frozen=True)
class Round:
    """Pictures per second; ``bare`` by batch size. ``rows_per_call`` belongs to ``steady``."""

    bare: dict[int, float]
    burst: float
    steady: float
    rows_per_call: float
    peer_single: float
    peer_batch: float


def ask_all(url: str, cases: Sequence[Fields], clients: int) -> list[Reply]:
    """Raises Unavailable when one fails: a figure without it would be too good."""
    replies = asyncio.run(press(url, cases, clients))
    for reply in replies:
        reply.require()
    return replies


def bare_rate(bare: Bare, size: int, first: int) -> float:
    """All evaluations in one call: the best that a loop can do."""
    batches = [plain(size, first + i) for i in range(0, PICTURES, size)]
    return PICTURES / sum(bare.seconds(batch) for batch in batches)


def burst_rate(service: LiveService, first: int) -> float:
    """Eight requests at the same moment, nothing before or after them; twice."""
    bursts = [plain(AT_ONCE, first + i) for i in range(0, PICTURES, AT_ONCE)]
    return len(bursts) / sum(1 / pictures_per_second(ask_all(service.url, burst, AT_ONCE)) for burst in bursts)


def steady_rates(service: LiveService, first: int) -> tuple[float, float]:
    """Eight clients, each sending its next request when it has its answer → (pictures per second, rows per call)."""
    names = ("vqd_rows_per_call_sum", "vqd_rows_per_call_count")
    before = [service.worker_count(name) for name in names]
    rate = pictures_per_second(ask_all(service.url, plain(2 * PICTURES, first), AT_ONCE))
    rows, calls = (service.worker_count(name) - old for name, old in zip(names, before, strict=True))
    return rate, rows / calls


def measure_round(service: LiveService, bare: Bare, peer: Peer, first: int) -> Round:
    defaults = bare.info.defaults
    evaluations = effort_of(defaults, bare.info.tokens, bare.info.timesteps).evaluations
    prompts = [fields["prompt"] for fields in plain(AT_ONCE, first)]
    rates = {size: bare_rate(bare, size, first) for size in SIZES}
    burst = burst_rate(service, first)
    steady, rows_per_call = steady_rates(service, first)
    singles = [peer.seconds([prompt], evaluations, defaults) for prompt in prompts]
    peer_batch = AT_ONCE / peer.seconds(prompts, evaluations, defaults)
    return Round(rates, burst, steady, rows_per_call, len(singles) / sum(singles), peer_batch)


def measure_together(service: LiveService, bare: Bare, peer: Peer, rounds: int) -> list[Round]:
    """Bare loop, service, diffusers, bare loop, …; one more round than asked for warms all three and is dropped."""
    numbers = tqdm(range(1 + rounds), desc="rounds", unit="round", leave=False)
    return [measure_round(service, bare, peer, PICTURES * number) for number in numbers][1:]


def lines(rounds: Sequence[Round]) -> list[Line]:
    """Ratios are taken within a round, so that a slow minute of the machine slows both sides.

    The best size is one for all rounds: the fastest of each round would often be best by luck.
    """
    best = max(rounds[0].bare, key=lambda size: median(one.bare[size] for one in rounds))

    def each(read: Callable[[Round], float]) -> list[float]:
        return [read(one) for one in rounds]

    burst, steady = f"{AT_ONCE} requests at once", f"{AT_ONCE} clients without pause"
    return [
        Line(f"{burst} ÷ bare loop at its best", "", each(lambda r: r.burst / r.bare[best]), 0.85, at_most=False),
        Line(f"{steady} ÷ bare loop at its best", "", each(lambda r: r.steady / r.bare[best]), 0.85, at_most=False),
        Line(f"{burst} ÷ diffusers one by one", "", each(lambda r: r.burst / r.peer_single), 3, at_most=False),
        Line(f"{steady} ÷ diffusers one by one", "", each(lambda r: r.steady / r.peer_single), 3, at_most=False),
        Line(f"Service, {burst}", "pictures/s", each(lambda r: r.burst)),
        Line(f"Service, {steady}", "pictures/s", each(lambda r: r.steady)),
        Line(f"Rows per step call, {steady}", "", each(lambda r: r.rows_per_call)),
        *(Line(f"Bare loop, batch of {n}", "pictures/s", [r.bare[n] for r in rounds]) for n in rounds[0].bare),
        Line("diffusers, one prompt at a time", "pictures/s", each(lambda r: r.peer_single)),
        Line(f"diffusers, batch of {AT_ONCE}", "pictures/s", each(lambda r: r.peer_batch)),
    ]
