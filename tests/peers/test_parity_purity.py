"""Parity 4 of sampling.md: whole runs of the step against the slow transcription of Algorithm 2, same logits."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peers.algorithm2 import evaluate
from peers.random_models import TINY, only_evaluation, plan_inputs, random_step, run, step_inputs
from samples import make_parameters
from torch import Tensor

from service.diffusion.noise import uniforms
from service.diffusion.samplers import make_plan
from service.diffusion.step import DiffusionStep
from service.messages import Parameters, PurityForm

FORMS = {"linear": 0, "power": 1}
BASE = make_parameters(guidance_scale=2.0, tokens_per_step=3, steps=1)


@pytest.fixture(scope="module")
def step() -> DiffusionStep:
    return random_step(TINY)


def call(p: Parameters) -> dict[str, Tensor]:
    """All evaluations of the request's one image as one call."""
    plan = make_plan(p, TINY.tokens, TINY.num_embeds_ada_norm)
    noise = torch.from_numpy(uniforms(p.seed, 0, 0, len(plan), TINY.tokens))[None]
    given: dict[str, Any] = {**plan_inputs(plan), "uniforms": noise}
    return step_inputs(
        TINY,
        seed=p.seed,
        **given,
        purity_form=FORMS[p.purity_form],
    )


def logits_of(step: DiffusionStep, inputs: dict[str, Tensor], evaluation: int) -> tuple[Any, Any]:
    """The network's (with text, without) logits [L, K] in float64."""
    memory = step.transformer.memory(inputs["contexts"][0].float())
    t = inputs["timestep"][:, evaluation].long().repeat(2)
    both = step.transformer(inputs["tokens"].long().repeat(2, 1), t, memory).double().numpy()
    return both[0], both[1]


def compare(step: DiffusionStep, p: Parameters) -> tuple[NDArray[np.int64], int]:
    """Run both through the whole plan; returns the last grid and how many decisions were near-ties."""
    inputs, ties = call(p), 0
    for e in range(inputs["timestep"].shape[1]):
        expected = evaluate(
            inputs["tokens"][0].long().numpy(),
            logits_of(step, inputs, e),
            inputs["uniforms"][0, e].double().numpy(),
            count=int(inputs["reveal"][0, e]),
            r=p.purity_r,
            form=p.purity_form.value,
            s=p.guidance_scale,
            rate=p.truncation_rate,
            temperature=p.temperature,
            by_purity=p.sampler == "purity",
        )
        tokens, purity = run(step, only_evaluation(inputs, e))
        differing = set(np.flatnonzero(tokens[0].numpy() != expected.tokens).tolist())
        assert differing <= expected.ties, f"evaluation {e}: {differing} differ, near-ties are {expected.ties}"
        np.testing.assert_allclose(purity[0].float(), expected.purity, atol=1e-3)
        ties += len(differing)
        inputs["tokens"] = tokens
    return inputs["tokens"][0].long().numpy(), ties


@pytest.mark.parametrize("form", PurityForm)
@pytest.mark.parametrize("r", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("z", [1, 3, 5, 16])
def test_a_run_equals_the_transcription(step: DiffusionStep, form: PurityForm, r: float, z: int) -> None:
    for seed in range(4):
        p = BASE.model_copy(update={"purity_form": form, "purity_r": r, "tokens_per_step": z, "seed": seed})
        grid, ties = compare(step, p)
        assert ties == 0, "not one decision of these runs is near enough to flip"
        assert grid.max() < TINY.codes


@pytest.mark.parametrize(
    "change",
    [
        {"guidance_scale": 1.0},
        {"guidance_scale": 0.0},
        {"guidance_scale": 6.0, "final_resample": False},
        {"truncation_rate": 0.86},
        {"truncation_rate": 0.3, "temperature": 4.0, "purity_form": PurityForm.POWER},
        {"temperature": 0.5, "guidance_scale": 1.0},
        {"sampler": "uniform", "purity_r": 2.0},
        {"steps": 16, "tokens_per_step": 5},
    ],
    ids=str,
)
def test_other_parameters_equal_the_transcription(step: DiffusionStep, change: dict[str, Any]) -> None:
    for seed in range(4):
        _, ties = compare(step, BASE.model_copy(update={**change, "seed": seed}))
        assert ties == 0


def test_r_form_and_sampler_change_pictures(step: DiffusionStep) -> None:
    """So that the comparison above cannot pass by leaving them out on both sides."""
    changes = ({}, {"purity_r": 0.0}, {"purity_form": PurityForm.POWER}, {"sampler": "uniform"})
    pictures = set()
    for change in changes:
        requests = [BASE.model_copy(update={"final_resample": False, "seed": seed, **change}) for seed in range(5)]
        pictures.add(tuple(compare(step, p)[0].tobytes() for p in requests))
    assert len(pictures) == len(changes)
