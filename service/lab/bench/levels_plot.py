"""Latency against load, a panel for each mix: measured as lines, simulated as dots."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from service.lab.bench.levels import Row

NAMES = {"step": "batches of steps", "request": "batches of requests"}


def plot_levels(rows: Sequence[Row], path: Path) -> None:
    rows = [row for row in rows if row.get("done_p95")]
    mixes = list(dict.fromkeys(row["mix"] for row in rows))
    figure = Figure(figsize=(4.5 * len(mixes), 3.8), layout="constrained")
    panels = figure.subplots(1, len(mixes), squeeze=False, sharey=True)[0]
    for axis, mix in zip(panels, mixes, strict=True):
        for number, (policy, name) in enumerate(NAMES.items()):
            draw(axis, [row for row in rows if (row["mix"], row["policy"]) == (mix, policy)], name, f"C{number}")
        axis.set(title=f"{mix} parameters", xlabel="offered load ÷ capacity", yscale="log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3)
    panels[0].set_ylabel("seconds")
    labelled = dict(zip(*reversed(panels[-1].get_legend_handles_labels()), strict=True))
    figure.legend(labelled.values(), labelled.keys(), loc="outside lower center", ncols=len(NAMES), fontsize="small")
    figure.savefig(path, dpi=80)


def draw(axis: Axes, rows: Sequence[Row], name: str, colour: str) -> None:
    rows = sorted(rows, key=lambda row: float(row["share"]))
    for column, style in (("done_p95", "o-"), ("done_p50", "o:"), ("best_done_p95", "x")):
        label = f"{name}, {column[-3:]}" + (" simulated" if column.startswith("best") else "")
        points = [(float(row["share"]), float(row[column])) for row in rows if row.get(column)]
        if points:
            axis.plot([x for x, _ in points], [y for _, y in points], style, color=colour, label=label)
