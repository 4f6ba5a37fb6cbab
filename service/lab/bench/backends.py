"""Every backend and dtype that this machine can run, in this process: the same tokens, the same alone, and how fast.

TorchScript is what the backends python and pytorch run. TensorRT needs a GPU.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from service.errors import SetupError
from service.export.build import export_model
from service.export.config import Backend
from service.export.precision import Precision
from service.lab.bench.bare import Bare
from service.lab.bench.bounds import facts, workplace
from service.lab.bench.cases import mixed, plain
from service.lab.bench.flips import SIZES, Flips, flips_of_modules, hashes_in_batches
from service.lab.bench.report import Line, Report
from service.lab.bench.statistics import median

TIMED_ROWS = (1, 4, 8, 16)
CALLS = 6


@dataclass(frozen=True)
class Way:
    backend: Backend
    dtype: Precision

    @property
    def name(self) -> str:
        return f"{'torchscript' if self.backend is Backend.PYTHON else self.backend} {self.dtype}"

    @property
    def reference(self) -> "Way":
        return Way(Backend.PYTHON, self.dtype)


WAYS = (
    Way(Backend.PYTHON, Precision.FP32),
    Way(Backend.ONNX, Precision.FP32),
    Way(Backend.AOTI, Precision.FP32),
    Way(Backend.PYTHON, Precision.BF16),
    Way(Backend.AOTI, Precision.BF16),
)
"""onnxruntime has no products in bf16 on a CPU."""


def ways_named(names: Sequence[str]) -> Sequence[Way]:
    """Those of WAYS; all where none is named. Raises SetupError for one that is not among them."""
    known = {way.name: way for way in WAYS}
    if unknown := [name for name in names if name not in known]:
        raise SetupError(f"--only {unknown[0]}: there are {', '.join(known)}")
    return [known[name] for name in names] or WAYS


def measure_backends(
    model: Path, grids: int, rounds: int, ways: Sequence[Way] = WAYS, export: Callable[..., object] = export_model
) -> Report:
    """Each way's grids are held against themselves in batches, and against TorchScript's in the same dtype."""
    about = facts(model, grids=grids, rounds=rounds)
    with workplace() as folder:
        bares: dict[Way, Bare] = {}
        for way in tqdm(dict.fromkeys([*ways, *(each.reference for each in ways)]), desc="exports", leave=False):
            export(model, folder / way.name, way.backend, dtype=way.dtype)
            bares[way] = Bare(folder / way.name)
        lines = [line for way in ways for line in times(way, bares[way], rounds)]
        for way in ways:
            alone, flips = flips_of_modules(bares[way], mixed(grids), SIZES)
            lines += [Flips(f"{way.name}, {one.where}", one.grids, one.flipped).line() for one in flips]
            if way != way.reference:
                with tqdm(total=grids, desc=way.reference.name, unit="grid", leave=False) as bar:
                    wanted = hashes_in_batches(bares[way.reference], mixed(grids), max(SIZES), 1, bar)
                lines.append(Flips.between(f"{way.name} and {way.reference.name}", wanted, alone).line())
        info = bares[ways[0]].info
    return Report(lines, about | {"model": info.name, "sha256": info.sha256})


def times(way: Way, bare: Bare, rounds: int) -> list[Line]:
    """Milliseconds of one guided evaluation, by batch."""
    lines = []
    for rows in TIMED_ROWS:
        values = [evaluation_ms(bare, rows) for _ in range(rounds)]
        lines.append(Line(f"One guided evaluation of {rows} rows, {way.name}", "ms", values))
    return lines


def evaluation_ms(bare: Bare, rows: int) -> float:
    """Median of some calls of an evaluation, after two that do not count."""
    batch, taken = bare.begin([fields | {"steps": 2 + CALLS} for fields in plain(rows)]), []
    for _ in range(2 + CALLS):
        began = time.perf_counter()
        bare.advance(batch, 1)
        taken.append(1000 * (time.perf_counter() - began))
    return median(taken[2:])
