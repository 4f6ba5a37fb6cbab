"""Which positions are masked again or revised, by hand."""

import numpy as np
import pytest
import torch
from peers.random_models import TINY, random_step, run, step_inputs
from torch import Tensor

from service.diffusion.selection import gumbel, highest, retire_scores
from service.diffusion.step import DiffusionStep

TOKENS, MASK = TINY.tokens, TINY.codes


@pytest.fixture(scope="module")
def step() -> DiffusionStep:
    return random_step(TINY)


def shown(count: int) -> Tensor:
    """The first ``count`` positions have codes, the rest are masked."""
    tokens = torch.full((1, TOKENS), MASK, dtype=torch.int32)
    tokens[0, :count] = torch.arange(count, dtype=torch.int32) % MASK
    return tokens


def score(*coefficients: float) -> Tensor:
    return torch.tensor(coefficients, dtype=torch.float32).expand(1, 1, 4)


def test_equal_scores_go_to_the_lower_index() -> None:
    chosen = highest(torch.zeros(1, 6), torch.tensor([[False, True, True, True, True, False]]), torch.tensor([2]))
    assert chosen.tolist() == [[False, True, True, False, False, False]]


def test_each_term_of_the_retiring_score() -> None:
    q, noise, kept = torch.tensor([[0.9, 0.1, 0.5]]), torch.tensor([[0.3, 0.2, 0.1]]), torch.tensor([0.8])
    expected = {0: -np.log(q), 1: np.log(1 - 0.8 * q), 2: noise}
    for place, term in expected.items():
        b = torch.zeros(1, 4)
        b[0, place] = 2.0
        torch.testing.assert_close(retire_scores(b, q, kept, noise), 2 * torch.as_tensor(term))


def test_what_is_remasked_is_visible_and_as_many_as_told(step: DiffusionStep) -> None:
    before = shown(10)
    after, _ = run(step, step_inputs(TINY, tokens=before, reveal=2, remask=3, retire_score=score(0, 0, 1, 0)))
    gone = (before != MASK) & (after == MASK)
    assert int(gone.sum()) == 3
    assert int((after != MASK).sum()) == 10 - 3 + 2
    kept = (before != MASK) & ~gone
    assert torch.equal(after[kept], before[kept])


def test_noise_alone_remasks_the_noisiest(step: DiffusionStep) -> None:
    inputs = step_inputs(TINY, tokens=shown(10), reveal=0, remask=3, retire_score=score(0, 0, 1, 0))
    after, _ = run(step, inputs)
    noisiest = gumbel(inputs["uniforms"][0, 0, :10, 1]).argsort(descending=True)[:3]
    assert sorted(noisiest.tolist()) == (after[0, :10] == MASK).nonzero().flatten().tolist()


def test_a_revision_replaces_codes_by_others(step: DiffusionStep) -> None:
    before = shown(10)
    after, _ = run(step, step_inputs(TINY, tokens=before, reveal=0, revise=2, retire_score=score(0, 0, 0, 1)))
    assert int((after != before).sum()) == 2
    assert (after[before == MASK] == MASK).all()
    assert (after[before != MASK] != MASK).all()


def test_pinned_positions_are_neither_remasked_nor_revised(step: DiffusionStep) -> None:
    before = shown(TOKENS)
    pinned = torch.where(torch.arange(TOKENS)[None] < 12, before, -1).int()
    inputs = step_inputs(TINY, tokens=before, pinned=pinned, reveal=0, remask=TOKENS, revise=TOKENS)
    after, _ = run(step, inputs)
    assert torch.equal(after[pinned >= 0], before[pinned >= 0])
    assert (after[pinned < 0] == MASK).all()


def test_as_many_are_remasked_as_told_beside_pinned_ones(step: DiffusionStep) -> None:
    before = shown(TOKENS)
    pinned = torch.where(torch.arange(TOKENS)[None] < 12, before, -1).int()
    inputs = step_inputs(TINY, tokens=before, pinned=pinned, reveal=0, remask=3, retire_score=score(0, 0, 1, 0))
    after, _ = run(step, inputs)
    assert int((after == MASK).sum()) == 3


def test_a_revision_to_the_same_code_is_none() -> None:
    """The network is sure of code 5 everywhere: where it stands already, there is nothing to revise."""
    step = random_step(TINY)
    sure = torch.full((1, TOKENS, MASK), -70.0)
    sure[..., 5] = 0.0
    step.denoise_parts = lambda *_: sure  # type: ignore[method-assign]
    before = torch.full((1, TOKENS), 7, dtype=torch.int32)
    before[0, 0] = 5
    inputs = step_inputs(TINY, tokens=before, reveal=0, revise=1, guidance=1.0, retire_score=score(0, 0, 0, 1))
    after, _ = run(step, inputs)
    assert (after != before).nonzero().tolist() == [[0, 1]]
