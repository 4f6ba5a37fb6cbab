"""What `vqd evaluate` asks: the settings that it measures, in tables, and the claims that they are held against."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from service.lab.bench.cases import Fields

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


def later(sampler: str, steps: int = 16) -> Setting:
    return setting(sampler=sampler, steps=steps, tokens_per_step=None, purity_r=0.0)


def scheduled(schedule: str, steps: int = 16, s: float = 2.0) -> Setting:
    return setting(guidance_schedule=schedule, steps=steps, tokens_per_step=-(-64 // steps), guidance_scale=s)


LATER = Table(
    "Later samplers, and guidance that changes",
    "Passes of the network: two for an evaluation with guidance, one without. `md4` takes at most so many.",
    [
        ("purity, constant: 32 passes", setting()),
        ("maskgit: 32 passes", later("maskgit")),
        ("halton: 32 passes", later("halton")),
        ("md4: 32 passes", later("md4")),
        ("purity, ramp: 31 passes", scheduled("ramp")),
        ("purity, ramp, s = 3: 31 passes", scheduled("ramp", s=3.0)),
        ("purity, interval, 21 evaluations: 31 passes", scheduled("interval", 21)),
        ("purity, interval: 24 passes", scheduled("interval")),
        ("purity, interval, s = 3: 24 passes", scheduled("interval", s=3.0)),
        ("purity, constant, 12 evaluations: 24 passes", scheduled("constant", 12)),
    ],
    [
        Claim("maskgit beats purity at equal passes", later("maskgit"), setting(), ASKED),
        Claim("halton beats purity at equal passes", later("halton"), setting(), ASKED),
        Claim("halton beats maskgit (2503.17076)", later("halton"), later("maskgit")),
        Claim("md4 beats purity at equal passes", later("md4"), setting(), ASKED),
        Claim("a ramp to s = 3 beats constant s = 2 (2507.08965)", scheduled("ramp", s=3.0), setting()),
        Claim("interval guidance with 31 passes beats constant with 32", scheduled("interval", 21), setting(), ASKED),
        Claim("interval guidance with 24 passes beats constant with 32", scheduled("interval"), setting(), ASKED),
        Claim("constant with 32 passes beats interval with 24", setting(), scheduled("interval"), ASKED),
        Claim(
            "interval guidance with 24 passes beats constant with 24",
            scheduled("interval"),
            scheduled("constant", 12),
            ASKED,
        ),
    ],
)
TABLES = (GUIDANCE, PURITY, SPEED, SAMPLERS, REST, LATER)
QUICK = tuple(setting(guidance_scale=s) for s in SCALES)


def all_settings() -> list[Setting]:
    """Of every table, each once; first the two that matter most, should nobody wait for the rest."""
    return list({key(s): s for s in (setting(), PLAIN, *(s for table in TABLES for _, s in table.rows))}.values())


def key(chosen: Setting) -> str:
    return json.dumps(asdict(chosen), sort_keys=True)
