"""Curves of the training logs, and of a table's records, as pictures."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from service.errors import SetupError

SMOOTH = 50
"""Steps that are averaged into one point: what a single batch gives is noise."""


def plot_curves(work: Path) -> Iterator[Path]:
    """Draw every ``NAME.jsonl`` of ``work`` as ``NAME.png``, one panel per logged value. Raises SetupError for none."""
    logs = sorted(work.glob("*.jsonl"))
    if not logs:
        raise SetupError(f"{work} holds no curves (*.jsonl): train first")
    for path in logs:
        points = {point["step"]: point for point in map(json.loads, path.read_text().splitlines())}  # the last run wins
        names = [name for name in next(iter(points.values())) if name != "step"]
        figure = Figure(figsize=(4 * len(names), 3), layout="constrained")
        steps = np.array(sorted(points))
        for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            values = np.array([points[step][name] for step in steps])
            bins = np.array_split(np.arange(len(steps)), -(-len(steps) // SMOOTH))
            axis.plot([steps[b].mean() for b in bins], [values[b].mean() for b in bins])
            axis.set(title=f"{path.stem}: {name}", xlabel="step")
            axis.grid(alpha=0.3)
        target = path.with_suffix(".png")
        figure.savefig(target, dpi=80)
        yield target
