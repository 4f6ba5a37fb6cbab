"""SAMPLERS: every sampler as a row of one table. Nothing else knows samplers by name.

A row says how a request becomes evaluations, which request fields the sampler takes with which ranges, and what
people are told of it. The plan, the step's batch, the checks of a request, the model card, the command line and the
documentation all read it here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from service.diffusion import walks
from service.diffusion.guidance_schedule import guidance_of, weights_of
from service.diffusion.plan import Float32, Plan
from service.errors import InvalidRequest
from service.messages import Parameters, PurityForm
from service.serving import Range

Limit = float | Literal["tokens", "timesteps"]
"""A number, or the size of the model that is the limit."""
Limits = Mapping[str, tuple[Limit, Limit]]
"""Request field → the least and the most that is allowed, unless the model folder says otherwise."""

COMMON: Limits = {
    "guidance_scale": (0.0, 20.0),
    "steps": (1, "timesteps"),
    "truncation_rate": (0.01, 1.0),
    "temperature": (0.05, 5.0),
    "n": (1, 16),
}
"""What every sampler takes."""
PURITY_R: Limits = {"purity_r": (0.0, 10.0)}
TOKENS_PER_STEP: Limits = {"tokens_per_step": (1, "tokens")}


@dataclass(frozen=True)
class Sampler:
    """``text`` continues the name, for people. ``refuses``: request field → why it makes no sense here."""

    name: str
    text: str
    walk: Callable[[Parameters, walks.Canvas], walks.Walk]
    """What it does in each evaluation. Raises InvalidRequest."""
    fields: Limits = field(default_factory=dict)
    """What it takes beside COMMON."""
    refuses: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Request field that only some samplers take → the names that may stand there."""
    switches: tuple[str, ...] = ()
    """Request fields, true or false, that only some samplers take."""

    @property
    def own(self) -> set[str]:
        """What no sampler takes that does not say so."""
        return {*self.choices, *self.switches}


RESAMPLE = ("final_resample",)
NO_Z = {"tokens_per_step": "this sampler decides by itself how many tokens a step reveals"}
SAMPLERS: Mapping[str, Sampler] = {
    row.name: row
    for row in (
        Sampler(
            "purity",
            "reveals sure positions first and sharpens them: the paper's",
            walks.purity,
            {**PURITY_R, **TOKENS_PER_STEP},
            choices={"purity_form": tuple(PurityForm)},
            switches=RESAMPLE,
        ),
        Sampler("uniform", "reveals positions at random", walks.uniform, TOKENS_PER_STEP, switches=RESAMPLE),
        Sampler(
            "ancestral",
            "draws every position at every step: VQ-Diffusion's own",
            walks.ancestral,
            refuses=NO_Z,
        ),
        Sampler("maskgit", "reveals likely codes first, few at the start and many later", walks.maskgit, refuses=NO_Z),
        Sampler("halton", "reveals positions far apart from one another, in a fixed order", walks.halton, refuses=NO_Z),
        Sampler(
            "md4",
            "reveals a random number of random positions, as masking undone",
            walks.md4,
            refuses=NO_Z,
            choices={"masking_schedule": tuple(walks.MASKING_SCHEDULES)},
        ),
    )
}


CHOICES = {name: names for row in SAMPLERS.values() for name, names in row.choices.items()}
OWN = {name for row in SAMPLERS.values() for name in row.own}
"""What only some samplers take."""
LIMITS: Limits = {**COMMON, **{name: limits for row in SAMPLERS.values() for name, limits in row.fields.items()}}
"""Of every field that some sampler takes."""


def known_sampler(name: str) -> str:
    """``name``, for validators. Raises ValueError for one that this version does not know."""
    if name not in SAMPLERS:
        raise ValueError(f"must be one of {', '.join(SAMPLERS)}, not {name!r}")
    return name


def make_plan(parameters: Parameters, tokens: int, timesteps: int, image: int = 0, masked: int | None = None) -> Plan:
    """The evaluations of one image of the seed, of ``tokens`` positions, on a model trained with ``timesteps`` steps.

    ``masked``: how many of them have no code at the beginning, all if nobody says.

    Raises InvalidRequest for impossible combinations.
    """
    sampler = SAMPLERS[parameters.sampler]
    for name, why in sampler.refuses.items():
        if getattr(parameters, name) is not None:
            raise InvalidRequest(name, f"does not apply to sampler {sampler.name!r}, leave it out: {why}")
    walk = sampler.walk(parameters, walks.Canvas(tokens, tokens if masked is None else masked, timesteps, image))
    n = len(walk.reveal)

    def each(value: float) -> Float32:
        return np.full(n, value, np.float32)

    return Plan(
        timestep=walk.timestep[:-1],
        timestep_next=walk.timestep[1:],
        weights=weights_of(guidance_of(parameters, walk.visible)),
        reveal=walk.reveal,
        remask=np.zeros(n, np.int32),
        revise=np.zeros(n, np.int32),
        reveal_score=np.broadcast_to(walk.score, (n, 4)),
        retire_score=np.zeros((n, 4), np.float32),
        sharpen=each(walk.sharpen),
        temperature=each(parameters.temperature),
        truncation=each(parameters.truncation_rate),
        order=np.zeros(tokens, np.float32) if walk.order is None else walk.order,
    )


class Effort(NamedTuple):
    """What all images of a request take: evaluations, and passes through the network, of which guidance needs two."""

    evaluations: int
    passes: int


def effort_of(parameters: Parameters, tokens: int, timesteps: int, masked: int | None = None) -> Effort:
    """Raises what ``make_plan`` raises."""
    plans = [make_plan(parameters, tokens, timesteps, image, masked) for image in parameters.images]
    return Effort(sum(map(len, plans)), sum(plan.passes for plan in plans))


def field_ranges(tokens: int, timesteps: int) -> dict[str, Range]:
    """The range of every request field that some sampler takes, for a model of these sizes."""
    sizes = {"tokens": tokens, "timesteps": timesteps}

    def number(limit: Limit) -> float:
        return sizes[limit] if isinstance(limit, str) else limit

    return {name: Range(minimum=number(low), maximum=number(high)) for name, (low, high) in LIMITS.items()}
