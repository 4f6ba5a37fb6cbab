"""Against the peer at its best: every way of making pictures, with diffusers and with ours, round by round."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeAlias

import torch
from tqdm import tqdm

from service.diffusion.samplers import effort_of
from service.export.build import export_model
from service.export.precision import Precision
from service.lab.bench.bare import Bare
from service.lab.bench.bounds import facts, workplace
from service.lab.bench.cases import Fields, plain
from service.lab.bench.live import LiveService
from service.lab.bench.load import pictures_per_second
from service.lab.bench.peer import Peer
from service.lab.bench.report import Line, Report
from service.lab.bench.statistics import median
from service.lab.bench.together import AT_ONCE, ask_all
from service.messages import Parameters

Rate: TypeAlias = Callable[[int], float]
"""From the number of the first request to pictures per second."""
Ways: TypeAlias = dict[str, Rate]
PEER = "diffusers"
BATCHES = (1, 2, 4, 8, 16)
BARE_BATCHES = (8, 16)
LEAST = 8
"""Pictures of a way in a round, or its batch where that is more."""
ONE_BY_ONE = f"{PEER} fp32, batch of 1"
BURST, STEADY = f"{AT_ONCE} requests at once", f"{AT_ONCE} clients without pause"
LEAD = {Precision.BF16: 5.0, Precision.FP32: 4.0}
"""How many times diffusers one by one the service is to be, in the dtype that is best on this processor."""
LEAD_AT_BEST = 2.0


class LiveIn(LiveService):
    """In one dtype."""

    def __init__(self, model: Path, repository: Path, folder: Path, dtype: Precision) -> None:
        super().__init__(model, repository, folder)
        self.command.append(f"--dtype={dtype}")


def guided_late(count: int, first: int = 0) -> list[Fields]:
    """``plain`` with the model's own guidance schedule."""
    return [
        {name: value for name, value in fields.items() if name != "guidance_schedule"} for fields in plain(count, first)
    ]


SCHEDULES: Mapping[str, Callable[[int, int], list[Fields]]] = {"default": guided_late, "constant": plain}
"""Of guidance. The peer has the constant one only."""


def batches(size: int, first: int) -> list[range]:
    """Numbers of requests, in groups of ``size``."""
    return [range(first + i, first + i + size) for i in range(0, max(LEAST, size), size)]


def peer_rate(peer: Peer, evaluations: int, parameters: Parameters, size: int, threads: int) -> Rate:
    def rate(first: int) -> float:
        groups = [[fields["prompt"] for fields in plain(size, group[0])] for group in batches(size, first)]
        with operator_threads(threads):
            return len(groups) * size / sum(peer.seconds(prompts, evaluations, parameters) for prompts in groups)

    return rate


@contextmanager
def operator_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def ways_of_peer(model: Path, bare: Bare, dtypes: Sequence[Precision]) -> Ways:
    """Each batch with a thread per core; in float32 one prompt at a time with a single thread, too."""
    defaults = bare.info.defaults
    evaluations = effort_of(defaults, bare.info.tokens, bare.info.timesteps).evaluations
    peers = {f"{PEER} {dtype}": Peer(model, bare, dtype.torch) for dtype in dtypes}
    if Precision.BF16 in dtypes:
        peers[f"{PEER} autocast"] = Peer(model, bare, torch.bfloat16, autocast=True)
    ways: Ways = {}
    for name, peer in peers.items():
        for size in BATCHES:
            rate = peer_rate(peer, evaluations, defaults, size, torch.get_num_threads())
            ways[f"{name}, batch of {size}"] = rate
    first = peers[f"{PEER} {Precision.FP32}"]
    return ways | {f"{ONE_BY_ONE}, one thread": peer_rate(first, evaluations, defaults, 1, threads=1)}


def bare_rate(bare: Bare, cases: Callable[[int, int], list[Fields]], size: int) -> Rate:
    def rate(first: int) -> float:
        groups = [cases(size, group[0]) for group in batches(size, first)]
        return len(groups) * size / sum(bare.seconds(group) for group in groups)

    return rate


def ways_of_bare(bares: Mapping[Precision, Bare]) -> Ways:
    """The plain loop over our modules."""
    return {
        f"bare loop {dtype}, {schedule} schedule, batch of {size}": bare_rate(bare, cases, size)
        for dtype, bare in bares.items()
        for schedule, cases in SCHEDULES.items()
        for size in BARE_BATCHES
    }


def service_rate(service: LiveService, cases: Callable[[int, int], list[Fields]], count: int) -> Rate:
    """``count`` requests of 8 clients; as many as clients are a burst, more are clients without pause."""
    return lambda first: pictures_per_second(ask_all(service.url, cases(count, first), AT_ONCE))


def ways_of_service(services: Mapping[Precision, LiveService]) -> Ways:
    return {
        f"service {dtype}, {schedule} schedule, {asked}": service_rate(service, cases, count)
        for dtype, service in services.items()
        for schedule, cases in SCHEDULES.items()
        for asked, count in ((BURST, AT_ONCE), (STEADY, 4 * AT_ONCE))
    }


def measure(ways: Ways, rounds: int) -> dict[str, list[float]]:
    """Pictures per second of every way, in turn; one more round than asked for warms all and is dropped."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    with tqdm(total=(1 + rounds) * len(ways), desc="peers", unit="way", leave=False) as bar:
        for number in range(1 + rounds):
            for name, rate in ways.items():
                found[name].append(rate(max(BATCHES) * number))
                bar.update()
    return {name: rates[1:] for name, rates in found.items()}


def lines(rates: Mapping[str, Sequence[float]], best_dtype: Precision) -> list[Line]:
    """The service at its default against the peer, then every rate. Ratios are taken within a round.

    The peer's best way is one for all rounds: the fastest of each round would often be best by luck.
    """
    of_peer = [name for name in rates if name.startswith(PEER)]
    best = max(of_peer, key=lambda name: median(rates[name]))
    service = f"service {best_dtype}, default schedule"

    def against(asked: str, peer: str, bound: float) -> Line:
        ratios = [ours / theirs for ours, theirs in zip(rates[f"{service}, {asked}"], rates[peer], strict=True)]
        return Line(f"{service}, {asked} ÷ {peer}", "", ratios, bound, at_most=False)

    bounds = [
        against(asked, peer, bound)
        for peer, bound in ((ONE_BY_ONE, LEAD[best_dtype]), (best, LEAD_AT_BEST))
        for asked in (BURST, STEADY)
    ]
    return bounds + [Line(name, "pictures/s", values) for name, values in rates.items()]


def measure_peers(model: Path, rounds: int) -> Report:
    """Everything. Raises SetupError or Unavailable when the service does not do its part."""
    about = facts(model, rounds=rounds)
    best = Precision.AUTO.decided()
    dtypes = (Precision.FP32, Precision.BF16) if best is Precision.BF16 else (Precision.FP32,)
    with workplace() as folder, ExitStack() as stack:
        bares, services = {}, {}
        for dtype in dtypes:
            repository = folder / dtype / "repository"
            export_model(model, repository, dtype=dtype)
            bares[dtype] = Bare(repository)
            services[dtype] = stack.enter_context(LiveIn(model, repository, folder / dtype, dtype))
        ours = ways_of_bare(bares) | ways_of_service(services)
        rates = measure(ways_of_peer(model, bares[Precision.FP32], dtypes) | ours, rounds)
    info = bares[best].info
    return Report(lines(rates, best), about | {"model": info.name, "sha256": info.sha256, "dtype": best.value})
