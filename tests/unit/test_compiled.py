"""The step for compilers gives the tokens of the step, for every kind of model; and calls are cut for it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from peers.random_models import TINY, only_evaluation, random_step, run
from test_step import mixed_rows

from service.condition import Condition
from service.diffusion.compiled import CompiledStep
from service.diffusion.guidance import normalise, truncate, truncate_by_threshold
from service.diffusion.served import step_for
from service.models.transformer import CLASS_NAMES, ClassTransformer, PlainTransformer
from service.triton.contract import Shapes, StepBatch, diffusion_step

KINDS = {Condition.LABEL: ClassTransformer, Condition.NONE: PlainTransformer}


def in_order(condition: Condition, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [inputs[tensor.name] for tensor in diffusion_step(condition).inputs]


@torch.inference_mode()
def test_rows_that_agree_in_nothing_have_the_same_tokens() -> None:
    step = random_step(TINY)
    compiled, inputs = CompiledStep(step, Condition.TEXT), mixed_rows()
    for e in range(4):
        now = only_evaluation(inputs, e)
        tokens, purity = compiled(*in_order(Condition.TEXT, now))
        expected = run(step, now)
        assert (tokens.dtype, purity.dtype) == (torch.int32, torch.float16)
        assert torch.equal(tokens, expected[0])
        assert torch.equal(purity, expected[1])


@pytest.mark.parametrize("condition", KINDS)
@torch.inference_mode()
def test_other_kinds_of_models_too(condition: Condition) -> None:
    config = replace(TINY, cross_attention_dim=0, num_classes=5 if condition is Condition.LABEL else 0)
    assert config.class_name == CLASS_NAMES[condition]
    torch.manual_seed(3)
    network = KINDS[condition](config).eval()
    network.prepare()
    step = step_for(condition, network, config.codes, config.timesteps).eval()
    inputs = only_evaluation(mixed_rows(), 0)
    inputs["labels"] = torch.tensor([[n % 5, 5] for n in range(6)], dtype=torch.int32)
    if condition is Condition.NONE:
        inputs["weights"] = torch.ones(6, 1, 1)
    named = dict(zip([t.name for t in diffusion_step(condition).inputs], in_order(condition, inputs), strict=True))
    assert torch.equal(CompiledStep(step, condition)(*named.values())[0], step(**named)[0])


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.86, 0.999])
def test_truncation_without_sorting_keeps_the_same_codes(rate: float) -> None:
    log_p = normalise(4 * torch.randn(3, 16, 200, generator=torch.Generator().manual_seed(1)))
    rates = torch.full((3,), rate)
    torch.testing.assert_close(truncate_by_threshold(log_p, rates), truncate(log_p, rates), rtol=0, atol=2e-6)


def test_equal_codes_stay_or_go_together() -> None:
    log_p = torch.tensor([0.4, 0.3, 0.3]).log()[None, None]
    assert (truncate_by_threshold(log_p, torch.tensor([0.5])) > -60).tolist() == [[[True, True, True]]]
    assert (truncate_by_threshold(log_p, torch.tensor([0.4])) > -60).tolist() == [[[True, False, False]]]


def test_a_call_is_cut_into_evaluations() -> None:
    shapes = Shapes(tokens=4, text_positions=2, text_width=3, codes=5, image_height=2, image_width=2)
    sample = StepBatch(**diffusion_step(Condition.TEXT).sample(shapes, 2))
    whole = replace(
        sample,
        **{
            t.name: getattr(sample, t.name).repeat(3, 1) for t in diffusion_step(Condition.TEXT).inputs if "k" in t.dims
        },
    )
    whole = replace(whole, timestep=np.array([[9, 8, 7]] * 2, np.int32))
    parts = list(whole.parts(1))
    assert [part.timestep.tolist() for part in parts] == [[[9]] * 2, [[8]] * 2, [[7]] * 2]
    assert all(part.uniforms.shape == (2, 1, 4, 2) and part.weights.shape == (2, 1, 2) for part in parts)
    assert all(part.contexts is whole.contexts and part.order is whole.order for part in parts)
    assert [part.timestep.shape[1] for part in whole.parts(2)] == [2, 1]
