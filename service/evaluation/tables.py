"""The tables of docs/quality.md: what each compares, what the paper found, and how records become Markdown."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from service.bench.cases import Fields
from service.errors import SetupError
from service.evaluation.measures import GROUPS, interval

Record: TypeAlias = Mapping[str, Any]
BASE: Fields = {
    "guidance_scale": 2.0,
    "purity_r": 1.0,
    "purity_form": "linear",
    "tokens_per_step": 4,
    "steps": 16,
    "sampler": "purity",
    "truncation_rate": 1.0,
    "temperature": 1.0,
    "final_resample": True,
}
"""What every setting has unless it says otherwise, whatever the model's defaults are."""
DEFAULTS = ("model", "own", False)
BEGIN, END = "<!-- tables: written by `vqd evaluate` -->", "<!-- end of tables -->"


@dataclass(frozen=True)
class Setting:
    """``fields``: of the request, or defaults of the model; the rest is what nobody can ask for."""

    fields: Fields
    null: str = "model"
    """The model's, "zero-shot" (states of the empty string), or "tuned" (learned on the finished model)."""
    scores: str = "own"
    """The form's own, or "other": Eq. 11 with raw purity in the linear form, with normalised in the power form."""
    rising: bool = False
    """s(t) linear from 1 to 2s - 1, the same mean."""


def setting(**fields: object) -> Setting:
    """BASE with some fields changed; None takes one away."""
    return Setting({name: value for name, value in {**BASE, **fields}.items() if value is not None})


@dataclass(frozen=True)
class Claim:
    """``better`` beats ``worse``, says ``source``."""

    text: str
    better: Setting
    worse: Setting
    source: str = "Published"


@dataclass(frozen=True)
class Table:
    title: str
    text: str
    rows: Sequence[tuple[str, Setting]]
    claims: Sequence[Claim] = field(default_factory=tuple)


ASKED = "For the defaults"
"""The source of what nobody has published: it decided `vqd.json`."""
PLAIN = setting(guidance_scale=1.0, purity_r=0.0)
SCALES = (1.0, 2.0, 3.0, 4.0, 5.0)
PURITIES = (0.0, 0.5, 1.0, 2.0)


def ancestral(steps: int) -> Setting:
    return setting(sampler="ancestral", steps=steps, tokens_per_step=None, purity_r=0.0)


def uniform(steps: int) -> Setting:
    return setting(sampler="uniform", steps=steps, tokens_per_step=-(-64 // steps), purity_r=0.0)


def by_purity(steps: int, r: float = 1.0) -> Setting:
    return setting(steps=steps, tokens_per_step=-(-64 // steps), purity_r=r)


GUIDANCE = Table(
    "Guidance scale s and the null",
    "Three ways to p(x | no text): the states of the empty string (zero-shot), the null trained by dropping captions,"
    " and a null learned on the finished model. At s = 1 none is used.",
    [
        ("s = 1", setting(guidance_scale=1.0)),
        *[(f"s = {s:g}, zero-shot", replace(setting(guidance_scale=s), null="zero-shot")) for s in SCALES[1:]],
        *[(f"s = {s:g}, dropped", setting(guidance_scale=s)) for s in SCALES[1:]],
        *[(f"s = {s:g}, learned after", replace(setting(guidance_scale=s), null="tuned")) for s in SCALES[1:]],
    ],
    [
        Claim("guidance beats none (best s on MSCOCO: 3)", setting(guidance_scale=3.0), setting(guidance_scale=1.0)),
        Claim(
            "zero-shot guidance already beats none (MSCOCO, FID 13.86 to 12.12)",
            replace(setting(guidance_scale=3.0), null="zero-shot"),
            setting(guidance_scale=1.0),
        ),
        Claim(
            "a learned null beats zero-shot (CLIP score 0.302 against 0.298)",
            replace(setting(guidance_scale=3.0), null="tuned"),
            replace(setting(guidance_scale=3.0), null="zero-shot"),
        ),
        Claim("without purity too, guidance at s = 2 beats none", setting(purity_r=0.0), PLAIN, ASKED),
        Claim("s = 2 beats s = 3", setting(), setting(guidance_scale=3.0), ASKED),
    ],
)
PURITY = Table(
    "Purity r, its form and its scores",
    "Linear: softmax((1 + r·score) log p); power: softmax(log p / score^r). Score: purity, raw or divided by its"
    " largest value in the picture. The service has linear with normalised and power with raw scores.",
    [
        ("r = 0", setting(purity_r=0.0)),
        *[
            (f"r = {r:g}, {form}, {name}", replace(setting(purity_r=r, purity_form=form), scores=scores))
            for form, ways in (
                ("linear", (("normalised", "own"), ("raw", "other"))),
                ("power", (("raw", "own"), ("normalised", "other"))),
            )
            for name, scores in ways
            for r in PURITIES[1:]
        ],
        ("r = 0, s = 1", PLAIN),
        ("r = 1, s = 1", setting(guidance_scale=1.0)),
    ],
    [
        Claim("purity helps, best near r = 1", setting(purity_r=1.0), setting(purity_r=0.0)),
        Claim("guidance and purity together beat neither (MSCOCO, FID 13.86 to 8.44)", setting(), PLAIN),
        Claim("the linear form beats the power form, r = 1", setting(), setting(purity_form="power"), ASKED),
    ],
)
SPEED = Table(
    "Tokens per step z",
    "max(steps, ⌈64 / z⌉) evaluations of the network; steps = 1 here, so z alone decides.",
    [(f"z = {z}: {64 // z} evaluations", setting(tokens_per_step=z, steps=1)) for z in (64, 16, 8, 4, 2, 1)],
    [
        Claim(
            "fewer tokens per step are better",
            setting(tokens_per_step=1, steps=1),
            setting(tokens_per_step=16, steps=1),
        ),
        *[
            Claim(
                f"z = 4 beats z = {z}",
                setting(tokens_per_step=4, steps=1),
                setting(tokens_per_step=z, steps=1),
                ASKED,
            )
            for z in (8, 64)
        ],
    ],
)
SAMPLERS = Table(
    "Samplers at equal network evaluations",
    "Uniform and ancestral know no r, so purity at r = 0 differs from uniform in the order alone.",
    [
        (f"{name}, {steps} evaluations", chosen)
        for steps in (8, 16)
        for name, chosen in (
            ("purity, r = 1", by_purity(steps)),
            ("purity, r = 0", by_purity(steps, r=0.0)),
            ("uniform", uniform(steps)),
            ("ancestral", ancestral(steps)),
        )
    ],
    [
        Claim("purity beats VQ-Diffusion's own (ancestral) sampler", by_purity(16), ancestral(16)),
        *[
            Claim(
                f"purity, r = {r:g}, beats uniform, {steps} evaluations",
                by_purity(steps, r),
                uniform(steps),
                ASKED,
            )
            for steps in (8, 16)
            for r in (0.0, 1.0)
        ],
    ],
)
REST = Table(
    "Final resampling, rising guidance, truncation, draft",
    "Final resampling: the last evaluation draws every position anew. Rising: s(t) from 1 to 2s - 1, the same mean.",
    [
        ("the base: s = 2, r = 1, resampled, constant, 1.0", setting()),
        ("no final resampling", setting(final_resample=False)),
        ("no final resampling, r = 0", setting(final_resample=False, purity_r=0.0)),
        ("rising, s = 2", replace(setting(), rising=True)),
        ("rising, s = 3", replace(setting(guidance_scale=3.0), rising=True)),
        ("truncation 0.86", setting(truncation_rate=0.86)),
        ("truncation 0.94", setting(truncation_rate=0.94)),
        (
            "the model card's draft: z = 8, 8 evaluations, s = 1",
            setting(steps=8, tokens_per_step=8, guidance_scale=1.0),
        ),
        ("truncation 0.86, s = 1, r = 0", setting(guidance_scale=1.0, purity_r=0.0, truncation_rate=0.86)),
    ],
    [
        Claim(
            "without guidance, truncation at 0.86 is best",
            setting(guidance_scale=1.0, purity_r=0.0, truncation_rate=0.86),
            PLAIN,
        ),
        Claim(
            "strong early guidance harms, late helps (published for masked diffusion, not in this paper)",
            replace(setting(guidance_scale=3.0), rising=True),
            setting(guidance_scale=3.0),
        ),
        Claim("final resampling beats none", setting(), setting(final_resample=False), ASKED),
        Claim("truncation at 0.86 beats none", setting(truncation_rate=0.86), setting(), ASKED),
    ],
)
TABLES = (GUIDANCE, PURITY, SPEED, SAMPLERS, REST)
QUICK = tuple(setting(guidance_scale=s) for s in SCALES)


def all_settings() -> list[Setting]:
    """Of every table, each once; first the two that matter most, should nobody wait for the rest."""
    return list({key(s): s for s in (setting(), PLAIN, *(s for table in TABLES for _, s in table.rows))}.values())


def key(chosen: Setting) -> str:
    return json.dumps(asdict(chosen), sort_keys=True)


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
        f"`{record['model'][:16]}`. In brackets the middle 95 % when prompts are resampled.\n",
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
    """Those that go with the last one: the same model and the same effort."""
    names = ("model", "per_group", "seeds")
    return [record for record in records if all(record[name] == records[-1][name] for name in names)]


def write_tables(records: Sequence[Record], page: Path) -> None:
    """Put the tables of the last run between BEGIN and END of ``page``. Raises SetupError when it has no such place."""
    text = page.read_text() if page.exists() else f"# Quality\n\n{BEGIN}\n{END}\n"
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SetupError(f"{page} has no place for the tables: a line {BEGIN} and later a line {END}")
    codec = next(record for record in records if "codec" in record)
    page.write_text(
        "\n".join([before + BEGIN + "\n", head(codec, Records(records)), *body(Records(records)), END]) + after
    )
