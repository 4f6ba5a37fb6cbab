"""SAMPLERS: one table that plan, ranges, checks and words come from."""

import pytest
from samples import make_parameters

from service.diffusion.samplers import SAMPLERS, field_ranges, known_sampler, make_plan
from service.errors import InvalidRequest
from service.gateway.schemas import GenerateRequest
from service.messages import Parameters

NAMES = ["purity", "uniform", "ancestral", "maskgit", "halton", "md4"]


def test_rows_are_keyed_by_their_names() -> None:
    assert list(SAMPLERS) == [sampler.name for sampler in SAMPLERS.values()] == NAMES


def test_ranges_are_those_of_all_samplers_for_the_models_sizes() -> None:
    ranges = field_ranges(tokens=64, timesteps=50)
    named = {name for sampler in SAMPLERS.values() for name in sampler.fields}
    assert named == {"purity_r", "tokens_per_step"} <= set(ranges)
    assert (ranges["tokens_per_step"].minimum, ranges["tokens_per_step"].maximum) == (1, 64)
    assert ranges["steps"].maximum == 50
    assert (ranges["temperature"].minimum, ranges["temperature"].maximum) == (0.05, 5)


def test_every_field_of_a_sampler_is_a_request_field_and_a_parameter() -> None:
    names = {name for sampler in SAMPLERS.values() for name in (*sampler.fields, *sampler.refuses)}
    assert names <= set(GenerateRequest.model_fields)
    assert names <= set(Parameters.model_fields)


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_a_sampler_refuses_is_refused_by_name(name: str) -> None:
    for field in SAMPLERS[name].refuses:
        with pytest.raises(InvalidRequest, match=f"does not apply to sampler '{name}'") as raised:
            make_plan(make_parameters(sampler=name), 64, 100)
        assert raised.value.field == field


def test_people_are_told_of_every_sampler() -> None:
    text = GenerateRequest.model_fields["sampler"].description or ""
    assert all(f"`{sampler.name}` {sampler.text}" in text for sampler in SAMPLERS.values())


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="must be one of " + ", ".join(NAMES) + ", not 'euler'"):
        known_sampler("euler")
