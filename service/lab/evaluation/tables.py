"""The tables of docs/quality.md: how the records of a run become Markdown."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from service.errors import SetupError
from service.lab.evaluation.measures import GROUPS, interval
from service.lab.evaluation.questions import BASE, TABLES, Claim, Setting, key, setting

Record: TypeAlias = Mapping[str, Any]
DEFAULTS = ("model", "own", False)
BEGIN, END = "<!-- tables: written by `vqd evaluate` -->", "<!-- end of tables -->"


class Records:
    """What a run has measured, by setting."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.by_key = {json.dumps(r["setting"], sort_keys=True): r for r in records if "setting" in r}

    def __contains__(self, chosen: Setting) -> bool:
        return key(chosen) in self.by_key

    def __getitem__(self, chosen: Setting) -> Record:
        return self.by_key[key(chosen)]

    def hits(self, chosen: Setting, group: str, top: int) -> Tensor:
        """Per prompt, the share of its pictures that are found among the ``top``, FP64 [N]."""
        return (torch.tensor(self[chosen]["ranks"][group]) < top).double().mean(0)

    def both(self, chosen: Setting, top: int) -> Tensor:
        return torch.cat([self.hits(chosen, group, top) for group in GROUPS])


def percent(values: Tensor) -> str:
    """Mean and interval."""
    low, high = interval(values)
    return f"{100 * values.mean():.0f} ({100 * low:.0f}-{100 * high:.0f})"


def distance(frechet: Sequence[float]) -> str:
    """Value and interval."""
    value, low, high = frechet
    return f"{value:.3f} ({low:.3f}-{high:.3f})"


def cells(records: Records, label: str, chosen: Setting) -> list[str]:
    record = records[chosen]
    found = [percent(records.hits(chosen, group, top)) for group in GROUPS for top in (1, 5)]
    return [label, *found, distance(record["frechet"]), f"{record['diversity']:.2f}"]


def verdict(records: Records, claim: Claim) -> str:
    """Whether top-1 retrieval, prompt by prompt, and the Fréchet distance go the published way."""
    difference = records.both(claim.better, 1) - records.both(claim.worse, 1)
    low, high = interval(difference)
    ours = "agrees" if low > 0 else "disagrees" if high < 0 else "no difference outside the interval"
    a, b = records[claim.better]["frechet"], records[claim.worse]["frechet"]
    nearer = "agrees" if a[2] < b[1] else "disagrees" if a[1] > b[2] else "no difference outside the intervals"
    points = f"{100 * difference.mean():+.0f} ({100 * low:+.0f} to {100 * high:+.0f}) points"
    return (
        f"{claim.source}: {claim.text}. Here: top-1 {points}: {ours}; Fréchet {a[0]:.3f} against {b[0]:.3f}: {nearer}."
    )


def summary(record: Record) -> str:
    """One line for people."""
    if "codec" in record:
        return "codec: " + ", ".join(f"{group} {record[group]['error'][0]:.4f}" for group in GROUPS)
    fields = {name: value for name, value in record["setting"]["fields"].items() if BASE.get(name) != value}
    others = {name: value for name, value in record["setting"].items() if name != "fields" and value not in DEFAULTS}
    top = {group: (torch.tensor(record["ranks"][group]) < 5).double().mean() for group in GROUPS}
    measured = ", ".join(f"top-5 {group} {100 * share:.0f} %" for group, share in top.items())
    return f"{fields | others}: {measured}, Fréchet {record['frechet'][0]:.3f}"


def head(record: Record, records: Records) -> str:
    """What was measured, with the codec's figures: no sampler can be better than its reconstructions."""
    lines = [
        f"{record['per_group']} held-out and as many seen prompts, {record['seeds']} pictures each, model "
        f"`{record['model'][:16]}` in {record.get('dtype', 'fp32')}. In brackets the middle 95 % when prompts are "
        "resampled.\n",
        "| reconstructions of the codec | mean absolute error, scale 0 to 1 | top-1 | top-5 |",
        "| --- | --- | --- | --- |",
    ]
    for group in GROUPS:
        error, low, high = record[group]["error"]
        found = [f"{100 * record[group][top]:.1f}" for top in ("top-1", "top-5")]
        lines.append(f"| {group} | {error:.4f} ({low:.4f}-{high:.4f}) | {' | '.join(found)} |")
    pictures, reconstructions = (distance(record[f"frechet_{name}"]) for name in ("pictures", "reconstructions"))
    if setting() in records:
        styles = records[setting()]["styles"]
        shares = " and ".join(f"{percent(torch.tensor(styles[group]).double().mean(0))} of {group}" for group in GROUPS)
        lines.append(f"\nIn the style that was asked for (default setting, percent): {shares} ones.")
    lines.append(
        f"\nFréchet distance of the prompts' own pictures: {pictures}, of their reconstructions: {reconstructions}. "
        "So few pictures, even real ones, are no nearer to all of the data."
    )
    return "\n".join(lines) + "\n"


def body(records: Records) -> Iterator[str]:
    header = ["", *(f"top-{top}, {group}" for group in GROUPS for top in (1, 5)), "Fréchet", "diversity"]
    for table in TABLES:
        rows = [cells(records, label, chosen) for label, chosen in table.rows if chosen in records]
        if not rows:
            continue
        lines = [header, ["---"] * len(header), *rows]
        yield f"### {table.title}\n\n{table.text}\n"
        yield "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
        for claim in table.claims:
            if claim.better in records and claim.worse in records:
                yield f"- {verdict(records, claim)}"
        yield ""


def of_last_run(records: Sequence[Record]) -> list[Record]:
    """Those that go with the last one: the same model and dtype, and the same effort."""
    names = ("model", "dtype", "per_group", "seeds")
    return [record for record in records if all(record.get(name) == records[-1].get(name) for name in names)]


def write_tables(records: Sequence[Record], page: Path) -> None:
    """Put the tables of the last run between BEGIN and END of ``page``. Raises SetupError when it has no such place."""
    if not page.exists():
        page.write_text(f"# Quality\n\n{BEGIN}\n{END}\n", encoding="utf-8")
    codec = next(record for record in records if "codec" in record)
    put_between(page, BEGIN, END, "\n".join([head(codec, Records(records)), *body(Records(records))]))


def put_between(page: Path, begin: str, end: str, text: str) -> None:
    """Replace what stands between two lines of ``page``. Raises SetupError when it has no such place."""
    before, found_begin, rest = (page.read_text(encoding="utf-8") if page.exists() else "").partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise SetupError(f"{page} has no place for the tables: a line {begin} and later a line {end}")
    page.write_text(f"{before}{begin}\n\n{text}\n{end}{after}", encoding="utf-8")
