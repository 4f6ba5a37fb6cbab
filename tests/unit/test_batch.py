"""Rows to tensors: every row brings its own of everything, at its own place in its plan."""

import numpy as np
import pytest
from samples import make_parameters

from service.condition import Condition
from service.diffusion.noise import uniforms
from service.diffusion.plan import PER_IMAGE, Plan
from service.diffusion.samplers import make_plan
from service.engine.batch import make_batch
from service.engine.row import Row
from service.messages import PurityForm
from service.triton.contract import Array, Shapes, diffusion_step

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
    return Row(parameters=wanted, image=number, plan=plan, tokens=grid, evaluation=number, conditions=both)


ROWS = [
    row(1, steps=8, tokens_per_step=2),
    row(2, sampler="uniform", purity_form=PurityForm.POWER, steps=5),
    row(3, sampler="ancestral", tokens_per_step=None, steps=7),
]


def test_every_tensor_is_of_the_contract() -> None:
    arrays = make_batch(ROWS, K).arrays()
    for tensor in diffusion_step(Condition.TEXT).inputs:
        assert tensor.fits(arrays[tensor.name], SHAPES, len(ROWS)), tensor.name


@pytest.mark.parametrize("name", list(Plan.__dataclass_fields__))
def test_a_row_goes_on_in_its_own_plan(name: str) -> None:
    batch = make_batch(ROWS, K).arrays()
    for got, one in zip(batch[name], ROWS, strict=True):
        whole = getattr(one.plan, name)
        assert got.tolist() == (whole if name in PER_IMAGE else whole[one.evaluation : one.evaluation + K]).tolist()


def test_a_row_has_its_own_form_of_equation_11() -> None:
    assert make_batch(ROWS, K).purity_form.tolist() == [[0], [1], [0]]


def test_a_null_that_nobody_needs_is_not_sent() -> None:
    alone = [row(4, steps=8)]
    alone[0].plan = make_plan(make_parameters(guidance_scale=1.0, steps=8), TOKENS, TIMESTEPS)
    batch = make_batch(alone, K)
    assert batch.contexts is not None
    assert (batch.contexts.shape[1], batch.weights.tolist()) == (1, [[[1.0]] * K])


def test_labels_and_nothing_are_conditions_too() -> None:
    labelled, plain = row(1, steps=5), row(2, steps=5)
    labelled.conditions, plain.conditions = (np.array(7, np.int32), np.array(10, np.int32)), ()
    for one, condition in ((labelled, Condition.LABEL), (plain, Condition.NONE)):
        arrays = make_batch([one], K).arrays()
        assert set(arrays) == {tensor.name for tensor in diffusion_step(condition).inputs}
    assert make_batch([labelled], K).arrays()["labels"].tolist() == [[7, 10]]


def test_a_row_has_its_own_prompt_null_and_grid() -> None:
    batch = make_batch(ROWS, K)
    assert batch.contexts is not None
    assert batch.contexts[:, :, 0, 0].tolist() == [[1, -1], [2, -2], [3, -3]]
    assert batch.tokens[:, 0].tolist() == [1, 2, 3]
    assert (batch.pinned == -1).all()


def test_a_row_has_the_noise_of_its_seed_its_image_and_its_evaluations() -> None:
    for got, one in zip(make_batch(ROWS, K).uniforms, ROWS, strict=True):
        assert (got == uniforms(one.parameters.seed, one.image, one.evaluation, K, TOKENS)).all()
    noise = uniforms(7, 0, 0, 2, TOKENS)
    assert not (noise == uniforms(7, 1, 0, 2, TOKENS)).any()
    assert not (noise[0] == noise[1]).any()
