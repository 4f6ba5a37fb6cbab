"""SAMPLERS: every sampler as a row of one table. Nothing else knows samplers by name.

A row says how a request becomes evaluations, which request fields the sampler takes with which ranges, and what
people are told of it. The plan, the step's batch, the checks of a request, the model card, the command line and the
documentation all read it here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

from service.diffusion.plan import Plan, ancestral_plan, even_plan
from service.errors import InvalidRequest
from service.messages import Parameters, Range

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


class Selection(IntEnum):
    """How ``diffusion_step`` weighs masked positions when it draws those to reveal: its input ``selection``."""

    UNIFORM = 0
    PURITY = 1


@dataclass(frozen=True)
class Sampler:
    """``text`` continues the name, for people. ``refuses``: request field → why it makes no sense here."""

    name: str
    text: str
    plan: Callable[[Parameters, int, int], Plan]
    """(parameters, tokens, timesteps) → the evaluations of one image. Raises InvalidRequest."""
    fields: Limits = field(default_factory=dict)
    """What it takes beside COMMON."""
    refuses: Mapping[str, str] = field(default_factory=dict)
    selection: Selection = Selection.UNIFORM


SAMPLERS: Mapping[str, Sampler] = {
    row.name: row
    for row in (
        Sampler(
            "purity",
            "reveals sure positions first and sharpens them: the paper's",
            even_plan,
            {**PURITY_R, **TOKENS_PER_STEP},
            selection=Selection.PURITY,
        ),
        Sampler("uniform", "reveals positions at random", even_plan, TOKENS_PER_STEP),
        Sampler(
            "ancestral",
            "draws every position at every step: VQ-Diffusion's own",
            ancestral_plan,
            refuses={"tokens_per_step": "the ancestral sampler decides by itself how many tokens a step reveals"},
        ),
    )
}


def known_sampler(name: str) -> str:
    """``name``, for validators. Raises ValueError for one that this version does not know."""
    if name not in SAMPLERS:
        raise ValueError(f"must be one of {', '.join(SAMPLERS)}, not {name!r}")
    return name


def make_plan(parameters: Parameters, tokens: int, timesteps: int) -> Plan:
    """The evaluations of one image with ``tokens`` positions on a model trained with ``timesteps`` steps.

    Raises InvalidRequest for impossible combinations.
    """
    sampler = SAMPLERS[parameters.sampler]
    for name in sampler.refuses:
        if getattr(parameters, name) is not None:
            raise InvalidRequest(name, f"does not apply to sampler {sampler.name!r}; leave it out")
    return sampler.plan(parameters, tokens, timesteps)


def count_evaluations(parameters: Parameters, tokens: int, timesteps: int) -> int:
    """Network evaluations of one image, guidance not counted twice. Raises what ``make_plan`` raises."""
    return len(make_plan(parameters, tokens, timesteps))


def field_ranges(tokens: int, timesteps: int) -> dict[str, Range]:
    """The range of every request field that some sampler takes, for a model of these sizes."""
    sizes = {"tokens": tokens, "timesteps": timesteps}
    limits = dict(COMMON)
    for sampler in SAMPLERS.values():
        limits |= sampler.fields

    def number(limit: Limit) -> float:
        return sizes[limit] if isinstance(limit, str) else limit

    return {name: Range(minimum=number(low), maximum=number(high)) for name, (low, high) in limits.items()}
