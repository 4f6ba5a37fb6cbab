"""Guidance that changes in the course: by hand, and what it costs."""

import numpy as np
import pytest
import torch
from peers.random_models import TINY, plan_inputs, random_step, run, step_inputs
from samples import make_parameters

from service.diffusion.guidance import FLOOR, combine, normalise
from service.diffusion.guidance_schedule import GUIDANCE_SCHEDULES, known_schedule
from service.diffusion.samplers import make_plan
from service.errors import InvalidRequest

EVEN = {"tokens_per_step": 16, "steps": 4, "guidance_scale": 3.0, "sampler": "uniform"}


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [3, 3, 3, 3]),
        ("ramp", [1, 1.5, 2, 2.5]),
        ("interval", [1, 1, 3, 3]),
        ("cosine", [1 + (1 - np.cos(np.pi * v**3)) for v in (0, 0.25, 0.5, 0.75)]),
        ((1.0, 2.0, 5.0, 0.5), [1, 2, 5, 0.5]),
    ],
)
def test_s_of_each_evaluation(schedule: str | tuple[float, ...], expected: list[float]) -> None:
    plan = make_plan(make_parameters(guidance_schedule=schedule, **EVEN), 64, 100)
    np.testing.assert_allclose(plan.weights[:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(plan.weights.sum(1), 1, rtol=1e-6)


def test_where_s_is_1_nothing_is_paid_for_the_null() -> None:
    passes = {
        name: make_plan(make_parameters(guidance_schedule=name, **EVEN), 64, 100).passes for name in GUIDANCE_SCHEDULES
    }
    assert passes == {"constant": 8, "ramp": 7, "interval": 6, "cosine": 7}


def test_a_list_has_one_value_for_each_evaluation() -> None:
    with pytest.raises(InvalidRequest, match="has 3 values, but this request takes 4 evaluations") as raised:
        make_plan(make_parameters(guidance_schedule=(1.0, 2.0, 3.0), **EVEN), 64, 100)
    assert raised.value.field == "guidance_schedule"


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="constant, ramp, interval, cosine, or a list"):
        known_schedule("linear")


def test_the_network_runs_only_for_pairs_with_a_weight() -> None:
    """Rows of one call, k = 4: one guided throughout, one from the middle on, one never."""
    step, batches = random_step(TINY), []
    hook = step.transformer.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    plans = [
        make_plan(
            make_parameters(guidance_schedule=name, **{**EVEN, "tokens_per_step": 4, "guidance_scale": s}), 16, 100
        )
        for name, s in (("constant", 3.0), ("interval", 3.0), ("constant", 1.0))
    ]
    rows = [plan_inputs(plan) for plan in plans]
    together = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    inputs = step_inputs(TINY, rows=3, uniforms=torch.rand(3, 4, 16, 2), **together)
    tokens, _ = run(step, inputs)
    hook.remove()
    assert batches == [4, 4, 5, 5]
    for row in range(3):
        alone, _ = run(step, {name: value[row : row + 1] for name, value in inputs.items()})
        assert torch.equal(alone[0], tokens[row])


def test_three_conditions_add_up() -> None:
    """log p = Σ g log p_c + a constant: two prompts and the null."""
    g = torch.tensor([[1.5, 0.75, -1.25]])
    log_p = normalise(torch.randn(3, 2, 9, generator=torch.Generator().manual_seed(0)))
    combined = combine(log_p, torch.zeros(3, dtype=torch.long), torch.arange(3), g)
    expected = (g[0, :, None, None] * log_p).sum(0).log_softmax(-1)
    torch.testing.assert_close(combined[0], expected)


def test_what_nobody_predicts_is_not_made_likely_by_leading_away_from_it() -> None:
    """A code at the floor for the condition that is led away from, and rare for all others, stays rare."""
    likely = normalise(torch.tensor([[[5.0, 3.0, 0.0, -20.0]]]))
    away = likely.clone()
    away[..., 3] = FLOOR
    log_p = torch.cat([likely, away, likely])
    combined = combine(log_p, torch.zeros(3, dtype=torch.long), torch.arange(3), torch.tensor([[1.0, -0.5, 0.5]]))
    assert float(combined[0, 0, 3].exp()) < 1e-5


def test_interval_begins_at_half_of_the_picture() -> None:
    plan = make_plan(
        make_parameters(guidance_schedule="interval", **{**EVEN, "tokens_per_step": 8, "steps": 8}), 64, 100
    )
    assert plan.weights[:, 0].tolist() == [1, 1, 1, 1, 3, 3, 3, 3]
