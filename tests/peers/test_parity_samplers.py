"""MaskGIT, Halton and MD4 against slow, literal transcriptions of their papers, in numpy, one position at a time."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peers.algorithm2 import Vector, adjusted, inverse_cdf, predicted
from peers.random_models import TINY, only_evaluation, plan_inputs, random_step, run, step_inputs
from samples import make_parameters
from torch import Tensor

from service.diffusion.noise import evaluation_uniforms, uniforms
from service.diffusion.samplers import make_plan
from service.diffusion.step import DiffusionStep
from service.diffusion.walks import OF_THE_WALK
from service.messages import Parameters

LARGE = TINY.tokens
S = 2.0


@pytest.fixture(scope="module")
def step() -> DiffusionStep:
    return random_step(TINY)


def request(sampler: str, steps: int, seed: int, **given: object) -> Parameters:
    return make_parameters(sampler=sampler, tokens_per_step=None, steps=steps, seed=seed, guidance_scale=S, **given)


def maskgit_counts(tokens: int, n: int) -> list[int]:
    """Algorithm 1 of 2202.04200 with its cosine: at least one mask stays until the end, and one goes each time."""
    counts, masked = [], tokens
    for i in range(n):
        if i == n - 1:
            left = 0
        else:
            left = math.floor(tokens * math.cos(math.pi / 2 * (i + 1) / n))
            left = max(1, min(masked - 1, left))
        counts.append(masked - left)
        masked = left
    return counts


def halton_counts(tokens: int, n: int) -> list[int]:
    total, counts = 0, []
    for i in range(n):
        wanted = tokens if i == n - 1 else math.floor(tokens * (1 - 2 / math.pi * math.acos((i + 1) / n)))
        after = max(total, i + 1, wanted)
        counts.append(after - total)
        total = after
    return counts


def halton_cells(side: int, seed: int, image: int) -> list[int]:
    """Cells in the order in which (Φ₂, Φ₃) first visits them, rolled by the seed's offset."""

    def inverse(j: int, base: int) -> float:
        digits = []
        while j:
            digits.append(j % base)
            j //= base
        return sum(digit / base ** (place + 1) for place, digit in enumerate(digits))

    cells: list[int] = []
    j = 1
    while len(cells) < side * side:
        cell = int(inverse(j, 2) * side) * side + int(inverse(j, 3) * side)
        if cell not in cells:
            cells.append(cell)
        j += 1
    offset = int(evaluation_uniforms(seed, image, OF_THE_WALK, 1)[0, 0] * side * side)
    return cells[offset:] + cells[:offset]


@pytest.mark.parametrize("n", [1, 2, 5, 8, 16, 64])
def test_counts_are_the_papers(n: int) -> None:
    for sampler, expected in (("maskgit", maskgit_counts(64, n)), ("halton", halton_counts(64, n))):
        reveal = make_plan(request(sampler, n, seed=3), 64, 100).reveal.tolist()
        assert reveal == expected
        assert (len(reveal), sum(reveal), min(reveal) >= 1) == (n, 64, True)


def test_the_examples_of_the_papers_schedules() -> None:
    assert make_plan(request("halton", 8, 0), 64, 100).reveal.tolist() == [5, 5, 5, 6, 6, 7, 9, 21]
    assert make_plan(request("maskgit", 8, 0), 64, 100).reveal.tolist() == [2, 3, 6, 8, 10, 11, 12, 12]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "poly"])
def test_md4_reveals_each_masked_position_with_its_chance(schedule: str) -> None:
    """Over many seeds: the mean number revealed at each step is L (α_s − α_t), and nothing else depends on a seed."""
    alpha = {
        "cosine": lambda t: 1 - math.cos(math.pi / 2 * (1 - t)),
        "linear": lambda t: 1 - t,
        "poly": lambda t: 1 - t * t,
    }[schedule]
    n, seeds = 4, 400
    share = [alpha(1 - (i + 1) / n) - alpha(1 - i / n) for i in range(n)]
    total = np.zeros(n)
    for seed in range(seeds):
        p = request("md4", n, seed, masking_schedule=schedule)
        plan = make_plan(p, 64, 100)
        assert plan.reveal.sum() == 64
        assert plan.reveal.min() >= 1, "an evaluation that reveals nothing is not made"
        if len(plan) == n:
            total += plan.reveal
        else:
            total += [0] * (n - len(plan)) + plan.reveal.tolist()
    deviation = np.sqrt(64 * np.array(share) * (1 - np.array(share)) / seeds)
    assert (np.abs(total / seeds - 64 * np.array(share)) < 5 * deviation + 0.3).all()


def test_md4_counts_are_the_seeds_and_the_images_own() -> None:
    counts = [make_plan(request("md4", 8, seed), 64, 100, image).reveal.tolist() for seed in (1, 2) for image in (0, 1)]
    assert len({tuple(one) for one in counts}) == 4
    assert counts[0] == make_plan(request("md4", 8, 1), 64, 100).reveal.tolist()


def test_a_halton_order_is_a_permutation_that_the_seed_rolls() -> None:
    orders = [make_plan(request("halton", 8, seed), 64, 100).order for seed in (1, 2)]
    for order, seed in zip(orders, (1, 2), strict=True):
        assert sorted(order.tolist()) == list(range(64))
        assert np.argsort(order).tolist() == halton_cells(8, seed, 0)
    assert orders[0].tolist() != orders[1].tolist()


def literal(
    tokens: NDArray[np.int64],
    logits: tuple[Vector, Vector],
    noise: Vector,
    count: int,
    sampler: str,
    progress: float,
    cells: list[int],
) -> NDArray[np.int64]:
    """One evaluation: a code for each masked position, and the ``count`` that the paper prefers keep theirs."""
    positions, mask = logits[0].shape
    codes, keys = {}, {}
    for i in range(positions):
        if tokens[i] != mask:
            continue
        log_p = predicted(logits[0][i], logits[1][i], S, 1.0)
        p = adjusted(log_p, 1.0, 1.0, 0.0, "linear", 1.0)
        codes[i], _ = inverse_cdf(p, noise[i, 0])
        gumbel = -math.log(-math.log(max(noise[i, 1], 1e-30)))
        keys[i] = {
            "maskgit": math.log(p[codes[i]]) + 4.5 * (1 - progress) * gumbel,
            "halton": -float(cells.index(i)),
            "md4": gumbel,
        }[sampler]
    out = tokens.copy()
    for i in sorted(keys, key=lambda i: -keys[i])[:count]:
        out[i] = codes[i]
    return out


def logits_of(step: DiffusionStep, inputs: dict[str, Tensor], e: int) -> tuple[Any, Any]:
    memory = step.transformer.memory(inputs["contexts"][0].float())
    t = inputs["timestep"][:, e].long().repeat(2)
    both = step.transformer(inputs["tokens"].long().repeat(2, 1), t, memory).double().numpy()
    return both[0], both[1]


@pytest.mark.parametrize("sampler", ["maskgit", "halton", "md4"])
@pytest.mark.parametrize("n", [1, 4, 9])
def test_a_run_equals_the_transcription(step: DiffusionStep, sampler: str, n: int) -> None:
    for seed in range(4):
        p = request(sampler, n, seed)
        plan = make_plan(p, TINY.tokens, TINY.num_embeds_ada_norm)
        noise = torch.from_numpy(uniforms(seed, 0, 0, len(plan), TINY.tokens))[None]
        inputs = step_inputs(TINY, seed=seed, **plan_inputs(plan), uniforms=noise)
        cells = halton_cells(TINY.sample_size, seed, 0)
        for e in range(len(plan)):
            expected = literal(
                inputs["tokens"][0].long().numpy(),
                logits_of(step, inputs, e),
                noise[0, e].double().numpy(),
                count=int(plan.reveal[e]),
                sampler=sampler,
                progress=(e + 1) / n,
                cells=cells,
            )
            inputs["tokens"], _ = run(step, only_evaluation(inputs, e))
            assert inputs["tokens"][0].tolist() == expected.tolist(), f"seed {seed}, evaluation {e}"
        assert int(inputs["tokens"].max()) < TINY.codes
