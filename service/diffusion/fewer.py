"""A request with less work in it: the same picture as far as that goes, in fewer evaluations."""

from service.diffusion.samplers import SAMPLERS, field_ranges
from service.messages import ModelInfo, Parameters


def fewer(parameters: Parameters, evaluations: int, model: ModelInfo) -> Parameters:
    """``parameters`` with at most so many evaluations of a picture, or as few as the model's ranges allow.

    As they are where they name the guidance of each evaluation: with fewer of them it would be another guidance.
    """
    if not isinstance(parameters.guidance_schedule, str):
        return parameters
    ranges = field_ranges(model.tokens, model.timesteps) | model.ranges
    changed = {"steps": min(parameters.steps, max(evaluations, round(ranges["steps"].minimum)))}
    z = parameters.tokens_per_step
    if z is not None and "tokens_per_step" in SAMPLERS[parameters.sampler].fields:
        needed = -(-model.tokens // evaluations)
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
