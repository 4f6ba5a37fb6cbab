"""What came of requests at one offered load: how long they waited and took, as a line of a CSV file and of a table."""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from service.lab.bench.statistics import quantile

Row: TypeAlias = dict[str, str | float]
QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class Served:
    """One request's times in seconds since it was due, whenever it got through.

    ``due``: since the beginning; ``first``: until its first evaluation began, in ``call``, which is counted as in
    Timings; ``done``: until its answer was there.
    """

    due: float
    first: float
    done: float
    call: int
    pictures: int = 1


@dataclass(frozen=True)
class Level:
    """``rate``: requests per second; ``share``: of the capacity; ``best``: the same requests simulated."""

    policy: str
    mix: str
    share: float
    rate: float
    deadline_s: float
    served: Sequence[Served]
    errors: Mapping[str, int]
    best: Sequence[Served] = ()

    def row(self) -> Row:
        """By column of the CSV file. Nothing but the number of errors where nothing was served."""
        about: Row = {
            "policy": self.policy,
            "mix": self.mix,
            "share": round(self.share, 3),
            "rate": round(self.rate, 3),
        }
        asked = len(self.served) + sum(self.errors.values())
        counts: Row = {"requests": asked, "errors": asked - len(self.served)}
        if not self.served:
            return about | counts
        span = max(one.due + one.done for one in self.served) - min(one.due for one in self.served)
        in_time = sum(one.done <= self.deadline_s for one in self.served) / asked
        measured: dict[str, float] = {
            "pictures_per_second": sum(one.pictures for one in self.served) / span,
            "steady": steady(self.served),
            **quantiles("first", [one.first for one in self.served]),
            **quantiles("done", [one.done for one in self.served]),
            "in_time": in_time,
            "worst_call": max(one.call for one in self.served),
            "growth": growth(self.served),
        }
        if self.best:
            best = quantiles("best_done", [one.done for one in self.best])
            measured |= best | {"p95_to_best": measured["done_p95"] / best["best_done_p95"]}
        return about | counts | {name: round(value, 4) for name, value in measured.items()}


def quantiles(name: str, values: Sequence[float]) -> dict[str, float]:
    return {f"{name}_p{round(100 * q)}": quantile(values, q) for q in QUANTILES}


def growth(served: Sequence[Served]) -> float:
    """Median latency of the last quarter to arrive ÷ that of the second: far above 1 where the queue only grows."""
    quarter = max(1, len(served) // 4)
    ordered = [one.done for one in sorted(served, key=lambda one: one.due)]
    return quantile(ordered[-quarter:], 0.5) / quantile(ordered[quarter : 2 * quarter] or ordered, 0.5)


def steady(served: Sequence[Served]) -> float:
    """Pictures per second between the first and the third quarter of the answers: without the beginning and the end.

    With more requests than the service can do, it is what the service can do.
    """
    ends = sorted((one.due + one.done, one.pictures) for one in served)
    first, last = len(ends) // 4, 3 * len(ends) // 4
    span = ends[last][0] - ends[first][0]
    return sum(pictures for _, pictures in ends[first + 1 : last + 1]) / span if span else 0.0


def count_errors(errors: Iterable[str | None]) -> dict[str, int]:
    return dict(Counter(filter(None, errors)))


COLUMNS = {
    "policy": "batches", "mix": "mix", "share": "load", "rate": "requests/s",
    "pictures_per_second": "pictures/s", "steady": "steady",
    "first_p50": "first p50", "first_p95": "p95", "first_p99": "p99",
    "done_p50": "done p50", "done_p95": "p95", "done_p99": "p99",
    "in_time": "in time", "worst_call": "worst call", "growth": "growth",
    "best_done_p95": "best p95", "p95_to_best": "p95 ÷ best", "errors": "errors",
}  # fmt: skip
"""Of the table: column of the CSV file → heading."""


def table(rows: Sequence[Mapping[str, str | float]]) -> str:
    """Markdown; only columns that have a value somewhere."""
    shown = {name: heading for name, heading in COLUMNS.items() if any(row.get(name, "") != "" for row in rows)}
    lines = [[*shown.values()], ["---"] * len(shown), *([cell(row.get(name, "")) for name in shown] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: str | float) -> str:
    """Three figures."""
    return value if isinstance(value, str) else f"{value:.3g}"


def published(levels: Iterable[Level], path: Path) -> str:
    """Write each level to ``path`` as soon as it is measured; returns all as a table."""
    rows: list[Row] = []
    for level in levels:
        rows.append(level.row())
        write_csv(path, rows)
    return f"{table(rows)}\n\n{path}"


def write_csv(path: Path, rows: Sequence[Mapping[str, str | float]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = dict.fromkeys(name for row in rows for name in row)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*columns], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: number_or(value) for name, value in row.items()} for row in csv.DictReader(file)]


def number_or(value: str) -> str | float:
    try:
        return float(value)
    except ValueError:
        return value
