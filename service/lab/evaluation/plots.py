"""What a table says, as a picture."""

from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from service.lab.evaluation.measures import interval
from service.lab.evaluation.questions import GUIDANCE, SPEED, Setting, Table
from service.lab.evaluation.tables import Records


class Point(NamedTuple):
    """s or z, and (value, low, high): top-5 of all prompts in percent, Fréchet distance."""

    x: float
    found: tuple[float, ...]
    distance: tuple[float, ...]


def point_of(x: float, chosen: Setting, records: Records) -> Point:
    hits = 100 * records.both(chosen, 5)
    return Point(x, (float(hits.mean()), *interval(hits)), tuple(records[chosen]["frechet"]))


def lines_of(table: Table, records: Records) -> dict[str, list[Point]]:
    """Line → its points, for the settings that were measured."""
    axis = "guidance_scale" if table is GUIDANCE else "tokens_per_step"
    lines: dict[str, list[Point]] = {}
    for label, chosen in table.rows:
        if chosen in records:
            name = label.partition(", ")[2]
            lines.setdefault(name, []).append(point_of(chosen.fields[axis], chosen, records))
    return lines


def draw(axis: Axes, points: list[Point], quantity: str, shift: float, name: str) -> None:
    """With error bars; ``shift`` keeps those of several lines apart."""
    values = [getattr(point, quantity) for point in points]
    bars = [[value - low for value, low, _ in values], [high - value for value, _, high in values]]
    axis.errorbar([p.x + shift for p in points], [v[0] for v in values], bars, marker="o", capsize=3, label=name)


def plot_tables(records: Records, folder: Path) -> list[Path]:
    """``quality-s.png`` and ``quality-z.png``."""
    paths = []
    for letter, table in (("s", GUIDANCE), ("z", SPEED)):
        figure = Figure(figsize=(8, 3), layout="constrained")
        found, distance = figure.subplots(1, 2)
        lines = lines_of(table, records)
        for number, (name, points) in enumerate(lines.items()):
            shift = 0.05 * (number - 2) if name else 0.0
            draw(found, points, "found", shift, name or "none needed")
            draw(distance, points, "distance", shift, name or "none needed")
        found.set(xlabel=letter, ylabel="top-5 retrieval, %")
        distance.set(xlabel=letter, ylabel="Fréchet distance")
        for axis in (found, distance):
            axis.grid(alpha=0.3)
            if table is SPEED:
                ticks = [chosen.fields["tokens_per_step"] for _, chosen in table.rows]
                axis.set_xscale("log", base=2)
                axis.set_xticks(ticks, list(map(str, ticks)))
            elif lines:
                axis.legend()
        paths.append(folder / f"quality-{letter}.png")
        figure.savefig(paths[-1], dpi=80)
    return paths
