"""Fewer evaluations for the same request: with every sampler, within the model's ranges, and said in words."""

import pytest
from samples import make_info, make_parameters

from service.diffusion.fewer import changes, fewer
from service.diffusion.guidance_schedule import GUIDANCE_SCHEDULES
from service.diffusion.samplers import SAMPLERS, make_plan
from service.messages import Parameters
from service.serving import Range

TOKENS = 64
MODEL = make_info(tokens=TOKENS)


def asked(sampler: str, steps: int = 16, z: int = 4, **changed: object) -> Parameters:
    takes_z = "tokens_per_step" in SAMPLERS[sampler].fields
    fields = {"sampler": sampler, "steps": steps, "tokens_per_step": z if takes_z else None, "seed": 3}
    return make_parameters(**fields, **changed)


def count(parameters: Parameters) -> int:
    """Evaluations of the picture that has most; every plan is made, and so is valid."""
    return max(len(make_plan(parameters, TOKENS, MODEL.timesteps, image)) for image in range(parameters.n))


@pytest.mark.parametrize("steps", [1, 16, 50])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_there_are_never_more_than_was_said_and_hardly_fewer(sampler: str, steps: int) -> None:
    before = asked(sampler, steps, n=3)
    for evaluations in range(1, count(before)):
        after = count(fewer(before, evaluations, MODEL))
        assert after <= evaluations < count(before)
        if sampler != "md4":  # which draws how many it has
            # No z gives, say, between 32 and 64 evaluations for 64 tokens.
            assert after == evaluations or -(-TOKENS // (-(-TOKENS // evaluations))) == after


@pytest.mark.parametrize("masked", [1, 20, 63])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_it_is_as_exact_for_a_part_of_a_picture(sampler: str, masked: int) -> None:
    def part(parameters: Parameters) -> int:
        return len(make_plan(parameters, TOKENS, MODEL.timesteps, 0, masked))

    before = asked(sampler, 60)
    for evaluations in range(1, part(before)):
        after = part(fewer(before, evaluations, MODEL, masked))
        assert after <= evaluations
        if "tokens_per_step" not in SAMPLERS[sampler].fields and sampler != "md4":
            assert after == evaluations


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_few_enough_stays(sampler: str) -> None:
    before = asked(sampler)
    assert fewer(before, 16, MODEL) == before


@pytest.mark.parametrize("schedule", GUIDANCE_SCHEDULES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nothing_but_the_number_of_evaluations_changes(sampler: str, schedule: str) -> None:
    before = asked(sampler, guidance_schedule=schedule)
    after = fewer(before, 5, MODEL)
    same = {"steps": before.steps, "tokens_per_step": before.tokens_per_step}
    assert after.model_copy(update=same) == before
    assert (after.tokens_per_step is None) == (before.tokens_per_step is None)


def test_z_is_raised_only_as_far_as_it_must_be() -> None:
    assert fewer(asked("purity", steps=16, z=16), 5, MODEL) == asked("purity", steps=5, z=16)
    assert fewer(asked("purity", steps=1, z=4), 5, MODEL) == asked("purity", steps=1, z=13)


def test_neither_leaves_the_models_ranges() -> None:
    ranges = {"steps": Range(minimum=6, maximum=50), "tokens_per_step": Range(minimum=1, maximum=8)}
    model = make_info(tokens=TOKENS, ranges=ranges)
    assert fewer(asked("uniform"), 2, model) == asked("uniform", steps=6, z=8)
    assert fewer(asked("ancestral"), 2, model) == asked("ancestral", steps=6)
    # What is beyond them by the model's own defaults is not brought back.
    assert fewer(asked("uniform", steps=4, z=16), 2, model) == asked("uniform", steps=4, z=16)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_guidance_of_each_evaluation_is_not_made_to_fit_others(sampler: str) -> None:
    before = asked(sampler, guidance_schedule=(2.0,) * 16)
    assert fewer(before, 4, MODEL) == before


def test_the_client_is_told_what_changed() -> None:
    before = asked("purity", steps=16, z=4)
    assert changes(before, fewer(before, 6, MODEL)) == [
        "tokens_per_step: 11 in place of 4, to meet the deadline",
        "steps: 6 in place of 16, to meet the deadline",
    ]
    assert changes(before, before) == []
