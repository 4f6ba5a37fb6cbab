"""What fewer passes of the network cost in quality: every setting, pair by pair, against the dearest one."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure

from service.lab.evaluation.measures import interval
from service.lab.evaluation.questions import Setting, scheduled, setting
from service.lab.evaluation.tables import Record, Records, distance, put_between

MARGIN = -2.0
"""Points of top-1: the lower end of a cheaper setting's interval must be above this for it to be a default."""
BASE = scheduled("constant", 16)
"""Constant guidance with 16 evaluations: 32 passes."""
BEGIN, END = "<!-- cost: written by `vqd evaluate --cost` -->", "<!-- end of cost -->"


def late(steps: int, start: float) -> Setting:
    """Guided from the evaluation on that finds the share ``start`` of the picture revealed."""
    scales = [2.0 if step / steps >= start else 1.0 for step in range(steps)]
    return setting(guidance_schedule=scales, steps=steps, tokens_per_step=-(-64 // steps))


LINES: Mapping[str, Mapping[int, Setting]] = {
    "constant": {steps: scheduled("constant", steps) for steps in (16, 12, 10, 8)},
    "interval, from 1/2": {steps: scheduled("interval", steps) for steps in (16, 12, 10, 8, 6)},
    "from 1/4": {16: late(16, 0.25)},
    "from 3/4": {steps: late(steps, 0.75) for steps in (16, 8)},
    "ramp": {steps: scheduled("ramp", steps) for steps in (16, 8)},
    "cosine": {steps: scheduled("cosine", steps) for steps in (16, 8)},
    "none": {steps: scheduled("constant", steps, s=1.0) for steps in (16, 8)},
}
"""Guidance → evaluations → setting."""
SAMPLERS: Mapping[str, Mapping[int, Setting]] = {
    f"{name}, interval": {
        8: setting(sampler=name, steps=8, tokens_per_step=z, purity_r=0.0, guidance_schedule="interval")
    }
    for name, z in (("uniform", 8), ("ancestral", None), ("maskgit", None), ("halton", None), ("md4", None))
}
"""The same for who chooses a sampler and leaves the rest to the model; not in the plot."""
FEW = [scheduled(name, steps) for name in ("constant", "interval") for steps in (16, 8)]
"""What is measured in float32 as well: enough to tell what the dtype does."""
CLOSE = [*FEW, scheduled("interval", 10)]
"""What a default is chosen from: measured again with more pictures."""
FIRST, AGAIN = 2, 6
"""Pictures of each prompt."""


def stages(dtype: str) -> dict[int, list[Setting]]:
    """Pictures of each prompt → what is measured with so many."""
    every = [chosen for line in (*LINES.values(), *SAMPLERS.values()) for chosen in line.values()]
    return {FIRST: FEW if dtype == "fp32" else every, AGAIN: CLOSE}


class Difference(NamedTuple):
    """In points, with its middle 95 % when prompts are resampled."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.1f} ({self.low:+.1f} to {self.high:+.1f})"


def difference(
    one: tuple[Records, *tuple[Setting, ...]], other: tuple[Records, *tuple[Setting, ...]], top: int
) -> Difference:
    """Of two settings' hits, prompt by prompt; or of several settings' mean hits."""
    hits, others = (
        torch.stack([records.both(chosen, top) for chosen in settings]).mean(0) for records, *settings in (one, other)
    )
    points = 100 * (hits - others)
    return Difference(float(points.mean()), *interval(points))


def groups_of(records: Sequence[Record]) -> dict[tuple[int, str], Records]:
    """(pictures of each prompt, dtype) → what was measured so."""
    found: dict[tuple[int, str], list[Record]] = {}
    for record in records:
        found.setdefault((record["seeds"], record["dtype"]), []).append(record)
    return {group: Records(found[group]) for group in sorted(found)}


def measured(records: Records) -> Iterator[tuple[str, int, Setting]]:
    """Guidance, evaluations, setting."""
    for guidance, line in {**LINES, **SAMPLERS}.items():
        yield from ((guidance, steps, chosen) for steps, chosen in line.items() if chosen in records)


def rows(records: Records) -> Iterator[list[str]]:
    yield ["guidance", "evaluations", "passes", "top-1", "top-1 against the first", "top-5 against it", "Fréchet"]
    yield ["---"] * 7
    for guidance, steps, chosen in measured(records):
        record, base = records[chosen], (records, BASE)
        hits = f"{100 * records.both(chosen, 1).mean():.1f}"
        against = ["", ""] if chosen == BASE else [str(difference((records, chosen), base, top)) for top in (1, 5)]
        yield [guidance, str(steps), str(record["passes"]), hits, *against, distance(record["frechet"])]


def section(records: Sequence[Record]) -> Iterator[str]:
    """The page's lines."""
    groups, last = groups_of(records), records[-1]
    yield (
        f"{last['per_group']} held-out and as many seen prompts, model `{last['model'][:16]}`, in points of all "
        "pictures; in brackets the middle 95 % when prompts are resampled.\n"
    )
    for (seeds, dtype), found in groups.items():
        if BASE in found:
            yield f"In {dtype}, {seeds} pictures of each prompt:\n"
            yield from (f"| {' | '.join(row)} |" for row in rows(found))
            yield ""
    for seeds in sorted({seeds for seeds, _ in groups}):
        yield from against_float32(groups.get((seeds, "bf16")), groups.get((seeds, "fp32")), seeds)


def against_float32(half: Records | None, whole: Records | None, seeds: int) -> Iterator[str]:
    """A line for each setting that was measured in both, and one for all of them."""
    if half is None or whole is None:
        return
    both: dict[str, tuple[Setting, ...]] = {
        f"guidance {name}, {steps} evaluations": (chosen,) for name, steps, chosen in measured(half) if chosen in whole
    }
    both["all of these"] = tuple(chosen for settings in both.values() for chosen in settings)
    for what, settings in both.items():
        tops = [f"top-{top} {difference((half, *settings), (whole, *settings), top)}" for top in (1, 5)]
        yield f"- bf16 against fp32, {seeds} pictures, {what}: {', '.join(tops)}."


def plot(records: Records, path: Path) -> None:
    """Points lost or won against passes."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axis, top in zip(figure.subplots(1, 2, sharey=True), (1, 5), strict=True):
        for number, (guidance, line) in enumerate(LINES.items()):
            chosen = [one for one in line.values() if one in records and one != BASE]
            if not chosen:
                continue
            found = [difference((records, one), (records, BASE), top) for one in chosen]
            passes = [records[one]["passes"] + 0.15 * (number - 3) for one in chosen]  # keeps error bars apart
            bars = [[d.mean - d.low for d in found], [d.high - d.mean for d in found]]
            axis.errorbar(passes, [d.mean for d in found], bars, marker="o", capsize=3, label=guidance)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set(xlabel="passes of the network", ylabel=f"top-{top} against 32 passes, points")
        axis.grid(alpha=0.3)
        if top == 1:
            axis.axhline(MARGIN, color="black", linewidth=0.8, linestyle=":")
        else:
            axis.legend(fontsize="small")
    figure.savefig(path, dpi=80)


def write_cost(records: Sequence[Record], page: Path, picture: Path) -> None:
    """The section of ``page`` and the plot. Raises SetupError when the page has no place for it."""
    settings = [record for record in records if "setting" in record]
    put_between(page, BEGIN, END, "\n".join(section(settings)) + "\n")
    found = max(groups_of(settings).values(), key=lambda one: len(one.by_key))
    if BASE in found:
        plot(found, picture)
