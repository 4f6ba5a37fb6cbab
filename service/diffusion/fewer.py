"""A request with less work in it: the same picture as far as that goes, in fewer evaluations."""

from service.diffusion.samplers import SAMPLERS, field_ranges
from service.messages import Parameters
from service.serving import ModelInfo


def fewer(parameters: Parameters, evaluations: int, model: ModelInfo, masked: int | None = None) -> Parameters:
    """``parameters`` with at most so many evaluations of a picture, or as few as the model's ranges allow.

    ``masked``: how many of its positions begin without a code, all if nobody says; ``steps`` are those of all.

    As they are where they name the guidance of each evaluation: with fewer of them it would be another guidance.
    """
    if not isinstance(parameters.guidance_schedule, str):
        return parameters
    ranges = field_ranges(model.tokens, model.timesteps) | model.ranges
    masked = model.tokens if masked is None else masked
    steps = evaluations * model.tokens // masked
    changed = {"steps": min(parameters.steps, max(steps, round(ranges["steps"].minimum)))}
    z = parameters.tokens_per_step
    if z is not None and "tokens_per_step" in SAMPLERS[parameters.sampler].fields:
        needed = -(-masked // evaluations)
        changed["tokens_per_step"] = max(z, min(needed, round(ranges["tokens_per_step"].maximum)))
    return parameters.model_copy(update=changed)


def changes(asked: Parameters, used: Parameters) -> list[str]:
    """What differs, in sentences for the client."""
    before, after = asked.model_dump(), used.model_dump()
    return [
        f"{name}: {after[name]} in place of {before[name]}, to meet the deadline"
        for name in before
        if after[name] != before[name]
    ]
