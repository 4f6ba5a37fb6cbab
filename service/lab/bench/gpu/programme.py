"""``vqd bench gpu``: what a GPU makes of the step, in one run of some minutes. Needs torch, numpy and safetensors only.

Every figure is one record of a list; a part for which no time was left says so in the list.
"""

import json
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from service.diffusion.step import DiffusionStep
from service.lab.bench.gpu.calls import Step, inputs_of, masked, paint
from service.lab.bench.gpu.measure import TF, Clock, MemoryPeak, peak_bytes, peak_flops, seconds, synchronised
from service.lab.bench.gpu.networks import TYPES, Network, compute_in
from service.lab.bench.gpu.peer import evaluation_seconds, has_network, pipeline_of
from service.lab.bench.gpu.variants import compile_blocks, over

Record = dict[str, Any]
LONG_CALL_FLOPS = 60e12
"""A timed call has as many evaluations as come near this, at most ``MOST_EVALUATIONS``."""
MOST_EVALUATIONS = 8
FLIP_SIZES = (2, 3, 5, 8, 16)
FLIPS_FLOPS = 3e14
"""What the grids of one flip rate may cost, at each batch."""


@dataclass
class Programme:
    """``sizes``: batches; ``grids``: of the flip rate, at most; ``product``: size of the matrices that show the peak.

    ``say`` gets each record as a line of text.
    """

    networks: Sequence[Network]
    device: str
    sizes: Sequence[int] = (1, 2, 4, 8, 16, 32, 64)
    passes: Sequence[int] = (2, 4, 8, 16)
    grids: int = 500
    product: int = 8192
    compiles: bool = True
    clock: Clock = field(default_factory=partial(Clock, 7))
    say: Callable[[str], object] = print
    records: list[Record] = field(default_factory=list)
    peaks: dict[str, float] = field(default_factory=dict)

    def note(self, what: str, **facts: Any) -> None:
        self.records.append({"what": what, **facts})
        shown = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in facts.items()}
        self.say(f"{self.clock.left_s:5.0f} s left  {what}: {json.dumps(shown)}")

    def part(self, what: str, needs_s: float, work: Callable[[], None], **facts: Any) -> None:
        """Do ``work`` if there is time for it; what goes wrong in it is a record, and the programme goes on."""
        if self.clock.left_s < needs_s:
            self.note("left out", part=what, why="no time left", **facts)
            return
        try:
            work()
        except Exception as error:  # one variant that this torch or device cannot do must not cost all others
            self.note("failed", part=what, error=f"{type(error).__name__}: {error}"[:500], **facts)
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def run(self) -> Record:
        began = datetime.now(UTC).isoformat(timespec="seconds")
        self.part("peaks", 5, self.measure_peaks)
        for network in self.networks:
            self.note(
                "network",
                network=network.name,
                tflop_per_pass=network.flops / TF,
                weights=network.weights,
                evaluations=network.evaluations,
            )
        for measure in (self.batches, self.peers, self.flips, self.pictures, self.dtypes, self.other_variants):
            for network in self.networks:
                self.part(measure.__name__, 10, partial(measure, network), network=network.name)
        return {"began": began, "machine": machine(self.device), "records": self.records}

    def measure_peaks(self) -> None:
        for dtype, kind in TYPES.items():
            compute_in(dtype)
            self.peaks[dtype] = peak_flops(kind, self.device, self.product)
            self.note("peak", dtype=dtype, tflops=self.peaks[dtype] / TF, product=self.product)
        self.note("peak", copied_gb_per_s=peak_bytes(self.device, self.product**2 * 16) / 1e9)

    def batches(self, network: Network) -> None:
        """bf16 by CUDA graphs, at every batch: the network's batch whole, and in parts of one size."""
        step = network.step(self.device, "bf16")
        for rows in self.sizes:
            self.speed(network, step, "graphs", "bf16", rows)
        for passes in self.passes:
            self.speed(network, step, "graphs", "bf16", 8, passes)

    def dtypes(self, network: Network) -> None:
        for dtype in ("fp16", "tf32", "fp32"):
            step = network.step(self.device, dtype)
            for rows in (1, 8):
                self.speed(network, step, "graphs", dtype, rows)

    def other_variants(self, network: Network) -> None:
        """What the pytorch backend does (script), and what compiled blocks would add."""
        step = network.step(self.device, "bf16")
        for variant, sizes in (("graphs-script", (8,)), ("script", (1, 8)), ("plain", (1, 8))):
            for rows in sizes:
                self.speed(network, step, variant, "bf16", rows)
        step = network.step(self.device, "bf16", compile_blocks)
        for rows in (1, 8) if self.compiles else ():
            self.part("compiled", 20, partial(self.speed, network, step, "compiled", "bf16", rows))

    def speed(
        self, network: Network, step: DiffusionStep, variant: str, dtype: str, rows: int, passes: int = 0
    ) -> None:
        """One cell: milliseconds per guided evaluation of the batch, transfers included."""
        flops = 2 * rows * network.flops
        count = max(1, min(MOST_EVALUATIONS, int(LONG_CALL_FLOPS / flops)))
        facts = {"network": network.name, "variant": variant, "dtype": dtype, "rows": rows, "passes": passes}

        def measure() -> None:
            with MemoryPeak(self.device) as memory:
                call = over(variant, step, self.device, rows, passes)
                inputs = inputs_of(network, range(rows), masked(network, rows), [0] * rows, count)
                taken = seconds(lambda: call(inputs), self.device) / count
            self.note(
                "speed",
                **facts,
                evaluations_per_call=count,
                ms_per_evaluation=1e3 * taken,
                pictures_per_s=rows / taken / network.evaluations,
                share_of_peak=flops / taken / self.peaks[dtype] if self.peaks else None,
                gpu_gib=memory.bytes / 2**30,
            )

        self.part("speed", 4, measure, **facts)

    def flips(self, network: Network) -> None:
        """Grids made alone against the same made in batches of others; a real model's in every type."""
        for dtype in ("bf16", "fp16", "fp32") if network.folder else ("bf16",):
            facts = {"network": network.name, "dtype": dtype}
            self.part("flips", 12, partial(self.flip_rate, network, dtype), **facts)

    def flip_rate(self, network: Network, dtype: str) -> None:
        evaluations = network.evaluations if network.folder else min(8, network.evaluations)
        affordable = int(FLIPS_FLOPS / (2 * evaluations * network.flops))
        grids = max(8, min(self.grids, affordable))
        call = over("graphs", network.step(self.device, dtype), self.device, max(FLIP_SIZES))
        alone = in_batches(network, call, grids, 1, evaluations)
        for rows in FLIP_SIZES:
            made = in_batches(network, call, grids, rows, evaluations)
            flipped = int((made != alone).any(1).sum())
            self.note("flips", network=network.name, dtype=dtype, rows=rows, grids=grids, flipped=flipped)

    def peers(self, network: Network) -> None:
        if not has_network(network):
            self.note(
                "left out", part="peers", network=network.name, why="diffusers is not here, or has no such network"
            )
            return
        for dtype, sizes in (("fp32", (1, 8)), ("fp16", (8,))):
            pipeline = pipeline_of(network, self.device, dtype)
            for rows in sizes:
                facts = {"network": network.name, "variant": "diffusers", "dtype": dtype, "rows": rows}

                def measure(
                    rows: int = rows, dtype: str = dtype, facts: Record = facts, pipeline: Any = pipeline
                ) -> None:
                    taken = evaluation_seconds(self.device, dtype, rows, pipeline)
                    per_second = rows / taken / network.evaluations
                    self.note("speed", **facts, ms_per_evaluation=1e3 * taken, pictures_per_s=per_second)

                self.part("peers", 5, measure, **facts)

    def pictures(self, network: Network) -> None:
        """Whole guided runs at the published number of evaluations, without encoding and decoding."""
        call = over("graphs", network.step(self.device, "bf16"), self.device, 8)
        for rows in (1, 8):
            paint(network, call, range(rows), 8, 8)
            began = synchronised(self.device)
            paint(network, call, range(rows), 8)
            taken = synchronised(self.device) - began
            self.note("whole run", network=network.name, rows=rows, evaluations=network.evaluations, seconds=taken)


def in_batches(network: Network, call: Step, grids: int, rows: int, evaluations: int) -> Tensor:
    """All grids [grids, L], made in batches of ``rows`` whose members are drawn anew; the last may be of fewer."""
    order = torch.randperm(grids, generator=torch.Generator().manual_seed(rows)).tolist()
    made = torch.empty([grids, network.config.tokens], dtype=torch.int32)
    for start in range(0, grids, rows):
        seeds = order[start : start + rows]
        made[seeds] = paint(network, call, seeds, evaluations, evaluations)
    return made


def machine(device: str) -> Record:
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor(),
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def lines(record: Record) -> Iterator[str]:
    """The speeds as a Markdown table."""
    yield "| network | variant | dtype | rows | passes | ms per evaluation | pictures/s | of the peak |"
    yield "|---|---|---|---|---|---|---|---|"
    for r in record["records"]:
        if r["what"] == "speed":
            share = f"{r['share_of_peak']:.0%}" if r.get("share_of_peak") else ""
            cells = [
                r["network"],
                r["variant"],
                r["dtype"],
                r["rows"],
                r.get("passes", ""),
                f"{r['ms_per_evaluation']:.3g}",
            ]
            yield "| " + " | ".join(map(str, [*cells, f"{r['pictures_per_s']:.3g}", share])) + " |"


def measure_gpu(out: Path, programme: Programme) -> str:
    """Run the programme, write its records to ``out``, return the table."""
    record = programme.run()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + "\n")
    return "\n".join(lines(record))
