"""Every backend and dtype that this machine can run, in this process: the same tokens, the same alone, and how fast.

TorchScript is what the backends python and pytorch run. TensorRT needs a GPU.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from service.export.build import export_model
from service.export.config import Backend
from service.export.precision import Precision
from service.lab.bench.bare import Bare
from service.lab.bench.bounds import facts, workplace
from service.lab.bench.cases import mixed, plain
from service.lab.bench.flips import SIZES, Flips, flips_of_modules
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


WAYS = (
    Way(Backend.PYTHON, Precision.FP32),
    Way(Backend.ONNX, Precision.FP32),
    Way(Backend.AOTI, Precision.FP32),
    Way(Backend.PYTHON, Precision.BF16),
    Way(Backend.AOTI, Precision.BF16),
)
"""onnxruntime has no products in bf16 on a CPU."""


def measure_backends(
    model: Path, grids: int, rounds: int, ways: Sequence[Way] = WAYS, export: Callable[..., object] = export_model
) -> Report:
    """Grids are held against TorchScript's in the same dtype, and against themselves in batches."""
    about = facts(model, grids=grids, rounds=rounds)
    with workplace() as folder:
        bares = {}
        for way in tqdm(ways, desc="exports", unit="export", leave=False):
            export(model, folder / way.name, way.backend, dtype=way.dtype)
            bares[way] = Bare(folder / way.name)
        lines = [line for way, bare in bares.items() for line in times(way, bare, rounds)]
        alone: dict[Way, list[str]] = {}
        for way, bare in bares.items():
            hashes, flips = flips_of_modules(bare, mixed(grids), SIZES)
            alone[way] = hashes
            lines += [Flips(f"{way.name}, {one.where}", one.grids, one.flipped).line() for one in flips]
            first = Way(Backend.PYTHON, way.dtype)
            if way != first and first in alone:
                lines.append(Flips.between(f"{way.name} and {first.name}", alone[first], hashes).line())
        info = next(iter(bares.values())).info
    return Report(lines, about | {"model": info.name, "sha256": info.sha256})


def times(way: Way, bare: Bare, rounds: int) -> list[Line]:
    """Milliseconds of one guided evaluation, by batch."""
    lines = []
    for rows in TIMED_ROWS:
        values = [evaluation_ms(bare, rows) for _ in range(rounds)]
        lines.append(Line(f"One guided evaluation of {rows} rows, {way.name}", "ms", values))
    return lines


def evaluation_ms(bare: Bare, rows: int) -> float:
    """Median of some calls of two evaluations, after two that do not count."""
    batch, taken = bare.begin(plain(rows)), []
    for _ in range(2 + CALLS):
        began = time.perf_counter()
        bare.advance(batch, 2)
        taken.append(1000 * (time.perf_counter() - began) / 2)
    return median(taken[2:])
