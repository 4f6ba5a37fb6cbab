"""Which runtime is best for the network alone, on the CPU: times of each beside TorchScript's, and what it answers."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from service.export.build import export_model
from service.export.precision import Precision
from service.lab.bench.bare import Bare
from service.lab.bench.bounds import facts, workplace
from service.lab.bench.cases import plain
from service.lab.bench.peers import operator_threads
from service.lab.bench.report import Line, Report, show, table
from service.lab.bench.runtimes import RUNTIMES, Call, Case, Inputs
from service.models.folder import load_model
from service.models.reading import Reading
from service.triton.contract import Float32

ROWS = (2, 4, 8, 16, 32)
LEAST_S = 0.03
"""Calls are repeated for so long, for one value."""
WARM_CALLS = 3
REFERENCE = "TorchScript fp32"


class Grids(NamedTuple):
    """Half-made pictures, as the network finds them: each once with its prompt and once with the null."""

    tokens: torch.Tensor
    timestep: torch.Tensor
    states: torch.Tensor


class Way(NamedTuple):
    """A runtime in a dtype: one call on all cores, or a call a core. ``source``: the network whose memory it takes."""

    runtime: str
    dtype: Precision
    calls: int
    source: Precision
    run: Callable[[Sequence[Inputs]], list[Float32]]

    @property
    def name(self) -> str:
        return f"{self.runtime} {self.dtype}"

    @property
    def setting(self) -> str:
        return "one call on all cores" if self.calls == 1 else "a call a core"


Networks: TypeAlias = Mapping[Precision, Any]


def half_made(bare: Bare, pictures: int) -> Grids:
    rows = bare.begin([{**fields, "guidance_schedule": "constant"} for fields in plain(pictures)])
    bare.advance(rows, rows[0].remaining // 2)
    tokens = torch.from_numpy(np.stack([row.tokens for row in rows])).long()
    timestep = torch.tensor([int(row.plan.timestep[row.evaluation]) for row in rows])
    states = torch.from_numpy(np.stack([row.conditions for row in rows if row.conditions], axis=1)).flatten(0, 1)
    return Grids(tokens.repeat(2, 1), timestep.repeat(2), states)


@torch.inference_mode()
def inputs_of(network: Any, grids: Grids, rows: int) -> Inputs:
    """As many with prompts as with the null."""
    half = len(grids.tokens) // 2
    chosen = torch.cat([torch.arange(rows // 2), half + torch.arange(rows // 2)])
    return Inputs(grids.tokens[chosen], grids.timestep[chosen], network.memory(grids.states[chosen]))


def load_networks(model: Path, dtypes: Sequence[Precision]) -> dict[Precision, Any]:
    networks: dict[Precision, Any] = {}
    for dtype in dtypes:
        network: Any = load_model(model, Reading(dtype.torch)).transformer
        network.prepare()
        assert isinstance(network, nn.Module)
        networks[dtype] = network.eval().requires_grad_(False)
    return networks


def runner(call: Call, threads: int, pool: ThreadPoolExecutor | None) -> Callable[[Sequence[Inputs]], list[Float32]]:
    """All parts at once in ``pool``, or else one after the other."""

    @torch.inference_mode()
    def own(inputs: Inputs) -> Float32:
        return call(inputs)

    def run(parts: Sequence[Inputs]) -> list[Float32]:
        if pool:
            return list(pool.map(own, parts))
        with operator_threads(threads):
            return [own(part) for part in parts]

    return run


def ways(networks: Networks, grids: Grids, folder: Path, cores: int, pool: ThreadPoolExecutor) -> Iterator[Way]:
    """Every runtime whose packages are installed, in every dtype of ``networks``; says which are left out."""
    for name, runtime in RUNTIMES.items():
        if lacks := runtime.lacks():
            tqdm.write(f"{name} is left out: {', '.join(lacks)} missing")
            continue
        for dtype, source in runtime.takes.items():
            if dtype not in networks:
                continue
            for calls, threads in ((1, cores), (cores, 1)):
                example = inputs_of(networks[source], grids, ROWS[1])
                with operator_threads(threads):
                    call = runtime.build(Case(networks[source], dtype, example, folder, calls, threads))
                    run = runner(call, threads, pool if calls > 1 else None)
                    run(example.cut(1))  # what compiles at its first call does so for as many threads as this one has
                yield Way(name, dtype, calls, source, run)


def seconds(way: Way, parts: Sequence[Inputs], least_s: float) -> float:
    """Of one run; the mean of as many as fit into ``least_s``."""
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < least_s or not count:
        way.run(parts)
        count += 1
    return passed / count


def measure_times(
    found: Sequence[Way],
    networks: Networks,
    grids: Grids,
    rounds: int,
    sizes: Sequence[int] = ROWS,
    least_s: float = LEAST_S,
) -> list[Line]:
    """Milliseconds a row of every way at every number of rows, in turn."""
    lines = []
    for rows in tqdm(sizes, desc="networks", unit="size", leave=False):
        whole = {dtype: inputs_of(network, grids, rows) for dtype, network in networks.items()}
        parts = [whole[way.source].cut(way.calls) for way in found]
        times: list[list[float]] = [[] for _ in found]
        for way, own in zip(found, parts, strict=True):
            for _ in range(WARM_CALLS):
                way.run(own)
        for _ in range(rounds):
            for way, own, into in zip(found, parts, times, strict=True):
                into.append(1000 * seconds(way, own, least_s) / rows)
        named = [f"{way.name}, {way.setting}, {rows} rows" for way in found]
        lines += [Line(name, "ms a row", values) for name, values in zip(named, times, strict=True)]
    return lines


def measure_answers(found: Sequence[Way], networks: Networks, grids: Grids, rows: int = max(ROWS)) -> list[Line]:
    """How far each is from TorchScript in float32, for ``rows`` in one call."""
    whole = {dtype: inputs_of(network, grids, rows) for dtype, network in networks.items()}
    logits = {way.name: way.run([whole[way.source]])[0] for way in found if way.calls == 1}
    wanted = logits[REFERENCE]
    lines = []
    for name, answer in logits.items():
        agree = float((answer.argmax(-1) == wanted.argmax(-1)).mean())
        lines += [
            Line(f"{name}: largest difference of a logit from {REFERENCE}", "", [float(np.abs(answer - wanted).max())]),
            Line(f"{name}: share of positions with the same likeliest code", "", [agree]),
        ]
    return lines


def side_by_side(lines: Sequence[Line], sizes: Sequence[int] = ROWS) -> str:
    """The lines of ``measure_times`` as Markdown: a row for each way, a column for each number of rows."""
    cells: dict[str, list[str]] = {}
    for line in lines:
        way, _, _ = line.what.rpartition(", ")
        cells.setdefault(way, []).append(show(line.value))
    head = ["ms a row", *(f"{rows} rows" for rows in sizes)]
    rows = [head, ["---"] * len(head), *([way, *values] for way, values in cells.items())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def measure_networks(model: Path, rounds: int) -> tuple[Report, str]:
    """On the cores that this process may use → (everything, its times as a table)."""
    about = facts(model, rounds=rounds)
    dtypes = [Precision.FP32]
    if Precision.AUTO.decided() is Precision.BF16:
        dtypes.append(Precision.BF16)
    cores = torch.get_num_threads()
    with workplace() as folder, ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)))
        export_model(model, folder / "repository", dtype=Precision.FP32)
        bare = Bare(folder / "repository")
        grids, networks = half_made(bare, max(ROWS) // 2), load_networks(model, dtypes)
        found = list(ways(networks, grids, folder, cores, pool))
        times = measure_times(found, networks, grids, rounds)
        answers = measure_answers(found, networks, grids)
    about |= {"model": bare.info.name, "sha256": bare.info.sha256}
    return Report(times + answers, about), f"{side_by_side(times)}\n\n{table(answers)}"
