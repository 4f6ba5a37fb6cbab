"""The plan: counts, number of evaluations, timesteps and the errors that name a field."""

import numpy as np
import pytest

from service.condition import Condition
from service.diffusion.plan import ANCESTRAL
from service.diffusion.samplers import make_plan
from service.errors import InvalidRequest
from service.messages import ImageFormat, Parameters, PurityForm
from service.triton.contract import Shapes, diffusion_step

T = 100
SHAPES = Shapes(tokens=64, text_positions=6, text_width=4, codes=10, image_height=8, image_width=8)


def parameters(**given: object) -> Parameters:
    usual = {
        "guidance_scale": 3.0,
        "purity_r": 1.0,
        "purity_form": PurityForm.LINEAR,
        "tokens_per_step": 3,
        "steps": 1,
        "sampler": "purity",
        "truncation_rate": 1.0,
        "temperature": 1.0,
        "final_resample": False,
        "seed": 0,
        "n": 1,
        "format": ImageFormat.PNG,
    }
    return Parameters.model_validate(usual | given)


@pytest.mark.parametrize("tokens", [1, 16, 64, 1000, 1024])
@pytest.mark.parametrize("z", [1, 2, 3, 5, 7, 11, 64, 1024, 5000])
@pytest.mark.parametrize("steps", [1, 7, 64, 1000])
@pytest.mark.parametrize("sampler", ["purity", "uniform"])
def test_counts_are_even_within_z_and_complete(tokens: int, z: int, steps: int, sampler: str) -> None:
    steps = min(steps, tokens)
    plan = make_plan(parameters(tokens_per_step=z, steps=steps, sampler=sampler), tokens, T)
    assert len(plan) == max(steps, int(np.ceil(tokens / z)))
    assert plan.reveal.sum() == tokens
    assert plan.reveal.min() >= 1
    assert plan.reveal.max() <= min(z, plan.reveal.min() + 1)


@pytest.mark.parametrize(("z", "steps", "expected"), [(11, 100, 100), (5, 100, 205), (1, 100, 1024), (1024, 1, 1)])
def test_number_of_evaluations_at_1024_tokens(z: int, steps: int, expected: int) -> None:
    assert len(make_plan(parameters(tokens_per_step=z, steps=steps), 1024, T)) == expected


@pytest.mark.parametrize("tokens", [16, 64, 1024])
@pytest.mark.parametrize("z", [1, 5, 11])
@pytest.mark.parametrize("timesteps", [25, 100])
def test_timesteps_have_the_nearest_gamma(tokens: int, z: int, timesteps: int) -> None:
    plan = make_plan(parameters(tokens_per_step=z), tokens, timesteps)
    gamma_bar = np.linspace(0.000009, 0.99999, timesteps)
    masked = tokens
    for t, count in zip(plan.timestep, plan.reveal, strict=True):
        distance = np.abs(gamma_bar - masked / tokens)
        assert distance[t] <= distance.min() + 1e-12, f"{masked} of {tokens} masked"
        masked -= count
    assert plan.timestep[0] == timesteps - 1
    assert list(plan.timestep_next) == [*plan.timestep[1:], -1]


def test_final_resample_draws_every_position_in_the_last_evaluation() -> None:
    plan, without = (make_plan(parameters(final_resample=f), 64, T) for f in (True, False))
    assert plan.reveal[-1] == ANCESTRAL
    assert plan.timestep_next[-1] == -1
    assert list(plan.reveal[:-1]) == list(without.reveal[:-1])
    assert len(plan) == len(without)


@pytest.mark.parametrize("timesteps", [25, 100, 1000])
def test_ancestral_strides_through_the_whole_schedule(timesteps: int) -> None:
    for steps in (1, 2, 3, 7, timesteps // 2, timesteps - 1, timesteps):
        plan = make_plan(parameters(sampler="ancestral", tokens_per_step=None, steps=steps), 64, timesteps)
        walk = [*plan.timestep, plan.timestep_next[-1]]
        assert (walk[0], walk[-1], len(plan)) == (timesteps - 1, -1, steps)
        assert list(plan.timestep[1:]) == list(plan.timestep_next[:-1])
        strides = -np.diff(walk)
        assert strides.min() >= 1
        assert strides.max() - strides.min() <= 1
        assert (plan.reveal == ANCESTRAL).all()


@pytest.mark.parametrize(
    ("steps", "timesteps", "walk"),
    [(3, 100, [99, 66, 33, -1]), (7, 100, [99, 85, 71, 57, 42, 28, 14, -1]), (2, 25, [24, 12, -1])],
)
def test_ancestral_strides_are_rounded_up(steps: int, timesteps: int, walk: list[int]) -> None:
    """By hand: T - 1 at the start, then ⌈T n / N⌉ - 1 with n evaluations left."""
    plan = make_plan(parameters(sampler="ancestral", tokens_per_step=None, steps=steps), 64, timesteps)
    assert [*plan.timestep, plan.timestep_next[-1]] == walk


def test_ancestral_with_all_steps_is_the_trained_chain() -> None:
    plan = make_plan(parameters(sampler="ancestral", tokens_per_step=None, steps=T), 64, T)
    assert list(plan.timestep) == list(range(T - 1, -1, -1))


def test_arrays_have_the_contracts_types() -> None:
    for sampler, z in (("purity", 5), ("ancestral", None)):
        plan = make_plan(parameters(sampler=sampler, tokens_per_step=z, guidance_scale=4.5), 64, T)
        assert {a.dtype for a in (plan.timestep, plan.timestep_next, plan.reveal)} == {np.dtype(np.int32)}
        assert plan.weights.tolist() == [[4.5, -3.5]] * len(plan)
        shapes = {tensor.name: tensor for tensor in diffusion_step(Condition.TEXT).inputs}
        for name, array in vars(plan).items():
            assert shapes[name].fits(array[None], SHAPES, 1), name


@pytest.mark.parametrize(
    ("given", "field", "says"),
    [
        ({"sampler": "ancestral", "tokens_per_step": 4}, "tokens_per_step", "ancestral"),
        ({"tokens_per_step": None}, "tokens_per_step", "from 1 to 64"),
        ({"steps": 65}, "steps", "at most 64"),
        ({"sampler": "uniform", "steps": 65}, "steps", "uniform"),
    ],
)
def test_impossible_combinations_name_the_field(given: dict[str, object], field: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as raised:
        make_plan(parameters(**given), 64, T)
    assert raised.value.field == field
