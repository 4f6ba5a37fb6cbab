"""Purity, both forms of Eq. 11, and drawing positions without replacement."""

import itertools

import pytest
import torch
from torch import Tensor

from service.diffusion.guidance import FLOOR, normalise, power, truncate
from service.diffusion.purity import purity_of, sharpness
from service.diffusion.selection import gumbel, highest, reveal_scores

ROWS, TOKENS, CODES = 2, 6, 20


def log_p(spread: float = 2.0) -> Tensor:
    return normalise(spread * torch.randn(ROWS, TOKENS, CODES, generator=torch.Generator().manual_seed(0)))


def sharpen(log_p: Tensor, r: Tensor, form: Tensor) -> Tensor:
    return power(log_p, sharpness(purity_of(log_p), r, form))


def column(value: float) -> Tensor:
    return torch.full((ROWS,), value)


def test_purity_is_the_largest_probability() -> None:
    torch.testing.assert_close(purity_of(log_p()), log_p().exp().max(-1).values)


@pytest.mark.parametrize("r", [0.0, 0.5, 1.0, 2.0, 10.0])
def test_both_forms_of_equation_11(r: float) -> None:
    whole = log_p().double()
    purity = whole.exp().max(-1).values
    exponents = {0: 1 + r * purity / purity.max(-1, keepdim=True).values, 1: purity**-r}
    for form, exponent in exponents.items():
        expected = (whole * exponent[:, :, None]).softmax(-1).float()
        ours = sharpen(log_p(), column(r), torch.full((ROWS,), form))
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-5)


def test_rows_choose_their_own_form_and_r() -> None:
    r, form = torch.tensor([0.5, 2.0]), torch.tensor([1, 0])
    together = sharpen(log_p(), r, form)
    for row in range(ROWS):
        one = slice(row, row + 1)
        alone = sharpen(log_p()[one], r[one], form[one])
        assert torch.equal(alone, together[one])


@pytest.mark.parametrize("form", [0, 1])
def test_sharpening_flat_predictions_of_many_codes_stays_finite(form: int) -> None:
    flat = normalise(1e-3 * torch.randn(1, 4, 16384, generator=torch.Generator().manual_seed(0)))
    sharp = sharpen(flat, torch.tensor([10.0]), torch.tensor([form]))
    assert torch.isfinite(sharp).all()
    torch.testing.assert_close(sharp.sum(-1), torch.ones(1, 4))


@pytest.mark.parametrize("form", [0, 1])
def test_truncated_codes_stay_impossible(form: int) -> None:
    cut = truncate(log_p(), column(0.5))
    sharp = sharpen(cut, column(0.1), torch.full((ROWS,), form))
    assert float(sharp[cut == FLOOR].max()) == 0


def choose_positions(weight: Tensor, masked: Tensor, count: Tensor, u: Tensor) -> Tensor:
    """Without replacement, in proportion to ``weight`` [B, L]: the purity sampler's scores."""
    a = torch.tensor([1.0, 0.0, 1.0, 0.0]).expand(len(weight), 4)
    nothing = torch.zeros_like(weight)
    return highest(reveal_scores(a, weight, nothing, gumbel(u), nothing), masked, count)


def places(weight: Tensor, masked: Tensor, count: list[int], seed: int = 0) -> Tensor:
    u = torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed))
    return choose_positions(weight, masked, torch.tensor(count), u)


def test_exactly_n_of_the_masked_positions() -> None:
    weight = torch.rand(5, 30)
    masked = torch.rand(5, 30) < 0.5
    masked[4] = False
    chosen = places(weight, masked, [0, 1, 7, 100, 3])
    available = masked.sum(1).tolist()
    assert chosen.sum(1).tolist() == [0, min(1, available[1]), min(7, available[2]), available[3], 0]
    assert not (chosen & ~masked).any()


def test_a_negative_count_chooses_nothing() -> None:
    assert not places(torch.rand(1, 9), torch.ones(1, 9, dtype=torch.bool), [-1]).any()


@pytest.mark.parametrize("value", [0.0, 1 - 2.0**-24])
def test_equal_extreme_uniforms_still_give_n_positions(value: float) -> None:
    u, weight = torch.full((1, 9), value), torch.ones(1, 9)
    assert int(choose_positions(weight, torch.ones(1, 9, dtype=torch.bool), torch.tensor([4]), u).sum()) == 4


def test_positions_are_drawn_without_replacement_in_proportion_to_their_weights() -> None:
    """Two of four, one of them not masked: the chance of each pair is that of drawing one after the other."""
    weight, n = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.9]), 60_000
    masked = torch.tensor([True, True, True, True, False])
    chosen = places(weight.expand(n, -1), masked.expand(n, -1), [2] * n)
    share = weight[:4] / weight[:4].sum()
    chi_square = 0.0
    for a, b in itertools.combinations(range(4), 2):
        p = float(share[a] * share[b] / (1 - share[a]) + share[b] * share[a] / (1 - share[b]))
        seen = int((chosen[:, a] & chosen[:, b]).sum())
        chi_square += (seen - n * p) ** 2 / (n * p)
    assert chi_square < 20.5, "5 degrees of freedom, p = 0.001"
