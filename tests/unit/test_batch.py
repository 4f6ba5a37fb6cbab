"""Rows to tensors: every row brings its own of everything, at its own place in its plan."""

import numpy as np
import pytest
from samples import make_parameters

from service.diffusion.noise import uniforms
from service.diffusion.plan import Plan
from service.diffusion.samplers import SAMPLERS, make_plan
from service.engine.batch import make_batch
from service.engine.row import Row
from service.messages import Parameters, PurityForm
from service.triton.contract import DIFFUSION_STEP, Array, Shapes

TOKENS, CODES, TIMESTEPS = 16, 10, 100
SHAPES = Shapes(tokens=TOKENS, text_positions=6, text_width=4, codes=CODES, image_height=8, image_width=8)
K = 2


def states(value: float) -> Array:
    return np.full((SHAPES.text_positions, SHAPES.text_width), value, np.float16)


def row(number: int, **changes: object) -> Row:
    """One that shares nothing with another number's."""
    wanted = make_parameters(
        seed=number,
        guidance_scale=1.5 + number,
        purity_r=0.25 * number,
        temperature=1 + 0.125 * number,
        truncation_rate=0.5 + 0.125 * number,
        **changes,
    )
    plan = make_plan(wanted, TOKENS, TIMESTEPS)
    grid = np.full(TOKENS, number, np.int32)
    both = (states(number), states(-number))
    return Row(parameters=wanted, image=number, plan=plan, tokens=grid, evaluation=number, states=both)


ROWS = [
    row(1, steps=8, tokens_per_step=2),
    row(2, sampler="uniform", purity_form=PurityForm.POWER, steps=5),
    row(3, sampler="ancestral", tokens_per_step=None, steps=7),
]


def test_every_tensor_is_of_the_contract() -> None:
    arrays = make_batch(ROWS, K).arrays()
    for tensor in DIFFUSION_STEP.inputs:
        assert tensor.fits(arrays[tensor.name], SHAPES, len(ROWS)), tensor.name


@pytest.mark.parametrize("name", list(Plan.__dataclass_fields__))
def test_a_row_goes_on_in_its_own_plan(name: str) -> None:
    batch = make_batch(ROWS, K).arrays()
    for got, one in zip(batch[name], ROWS, strict=True):
        assert got.tolist() == getattr(one.plan, name)[one.evaluation : one.evaluation + K].tolist()


SCALARS = {
    "purity_r": lambda p: p.purity_r,
    "temperature": lambda p: p.temperature,
    "truncation": lambda p: p.truncation_rate,
    "selection": lambda p: SAMPLERS[p.sampler].selection,
    "purity_form": lambda p: int(p.purity_form is PurityForm.POWER),
}


@pytest.mark.parametrize("name", SCALARS)
def test_a_row_has_its_own_parameters(name: str) -> None:
    wanted: list[Parameters] = [one.parameters for one in ROWS]
    assert make_batch(ROWS, K).arrays()[name].tolist() == [[SCALARS[name](p)] for p in wanted]


def test_a_row_has_its_own_prompt_null_and_grid() -> None:
    batch = make_batch(ROWS, K)
    assert [context.min() for context in batch.context] == [1, 2, 3]
    assert [context.min() for context in batch.null_context] == [-1, -2, -3]
    assert batch.tokens[:, 0].tolist() == [1, 2, 3]
    assert (batch.pinned == -1).all()


def test_a_row_has_the_noise_of_its_seed_its_image_and_its_evaluations() -> None:
    for got, one in zip(make_batch(ROWS, K).uniforms, ROWS, strict=True):
        assert (got == uniforms(one.parameters.seed, one.image, one.evaluation, K, TOKENS)).all()
    noise = uniforms(7, 0, 0, 2, TOKENS)
    assert not (noise == uniforms(7, 1, 0, 2, TOKENS)).any()
    assert not (noise[0] == noise[1]).any()
