"""Measured values beside their bounds: as a Markdown table and as JSON, with the machine that they are from."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from service.lab.bench.statistics import median


@dataclass(frozen=True)
class Line:
    """One measured quantity. ``values``: one per run; ``bound``: None for information only.

    ``worst`` judges (and shows) the run that is furthest on the wrong side, else the median.
    """

    what: str
    unit: str
    values: Sequence[float]
    bound: float | None = None
    at_most: bool = True
    worst: bool = False

    @property
    def value(self) -> float:
        if self.worst:
            return max(self.values) if self.at_most else min(self.values)
        return median(self.values)

    @property
    def met(self) -> bool | None:
        if self.bound is None:
            return None
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def record(self) -> dict[str, Any]:
        facts = {
            "what": self.what,
            "unit": self.unit,
            "value": self.value,
            "judged": "worst" if self.worst else "median",
        }
        return facts | {"values": list(self.values), "bound": self.bound, "at_most": self.at_most, "met": self.met}

    def cells(self) -> list[str]:
        spread = f"{show(min(self.values))} … {show(max(self.values))} ({len(self.values)})"
        sign = "≤" if self.at_most else "≥"
        limit = "—" if self.bound is None else f"{sign} {show(self.bound)} {self.unit}".strip()
        met = {True: "yes", False: "**no**", None: "—"}[self.met]
        return [self.what, f"{show(self.value)} {self.unit}".strip(), spread, limit, met]


def show(value: float) -> str:
    """Three figures; whole numbers as they are."""
    if value == int(value):
        return str(int(value))
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(lines: Sequence[Line]) -> str:
    rows = [["What", "Measured", "Smallest … largest (runs)", "Bound", "Met"], ["---"] * 5, *(x.cells() for x in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def machine() -> dict[str, Any]:
    """What a figure depends on beside our code."""
    return {
        "cpu": cpu_model(Path("/proc/cpuinfo").read_text()),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "system": platform.platform(),
        "load_before": os.getloadavg()[0],
    }


def cpu_model(cpuinfo: str) -> str:
    names = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


@dataclass(frozen=True)
class Report:
    """``facts``: machine, model, options: whatever the lines depend on."""

    lines: list[Line]
    facts: dict[str, Any]

    def published(self, path: Path) -> str:
        """Write everything to ``path`` as JSON; returns the Markdown table."""
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {**self.facts, "lines": [line.record() for line in self.lines]}
        path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return f"{table(self.lines)}\n\n{path}"
