"""Guidance, truncation and sharpening on log p."""

import pytest
import torch
from peers.random_models import guided
from torch import Tensor

from service.diffusion.guidance import FLOOR, normalise, power, truncate

ROWS, TOKENS, CODES = 3, 5, 40


def log_p(seed: int, spread: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalise(spread * torch.randn(ROWS, TOKENS, CODES, generator=generator))


def total(values: Tensor) -> Tensor:
    return values.exp().sum(-1)


def test_guidance_at_0_and_1_is_the_null_and_the_conditional() -> None:
    conditional, null = log_p(1), log_p(2)
    torch.testing.assert_close(guided(conditional, null, torch.zeros(ROWS)), null)
    assert torch.equal(guided(conditional, null, torch.ones(ROWS)), conditional)


def test_guidance_sharpens_what_the_text_favours() -> None:
    conditional, null = log_p(1), log_p(2)
    steered = guided(conditional, null, torch.full((ROWS,), 4.0))
    torch.testing.assert_close(total(steered), torch.ones(ROWS, TOKENS))
    odds = (steered - null) - 4 * (conditional - null)
    kept = steered > FLOOR
    for position in range(TOKENS):
        same = odds[0, position][kept[0, position]]
        assert float(same.max() - same.min()) < 1e-3, "log p = null + s (conditional - null) + a constant"


def test_every_row_has_its_own_scale_and_survives_the_floor() -> None:
    conditional, null = log_p(1, spread=60), log_p(2, spread=60)
    scale = torch.tensor([1.0, 3.0, 20.0])
    together = guided(conditional, null, scale)
    assert torch.isfinite(together).all()
    assert float(together.min()) >= FLOOR
    for row in range(ROWS):
        one = slice(row, row + 1)
        assert torch.equal(guided(conditional[one], null[one], scale[one]), together[one])


def test_a_row_without_guidance_keeps_its_bits_beside_one_that_has_it() -> None:
    conditional, null = log_p(1), log_p(2)
    together = guided(conditional, null, torch.tensor([1.0, 3.0, 0.0]))
    assert torch.equal(together[0], conditional[0])
    assert torch.equal(together[2], null[2])


@pytest.mark.parametrize("rate", [0.01, 0.5, 0.86, 0.999])
def test_truncation_keeps_the_smallest_set_that_reaches_the_rate(rate: float) -> None:
    whole = log_p(3)
    kept = truncate(whole, torch.full((ROWS,), rate)) > FLOOR
    for p, keep in zip(whole.exp().double().flatten(0, 1), kept.flatten(0, 1), strict=True):
        ordered = p.sort(descending=True).values
        needed = int((ordered.cumsum(0) < rate).sum()) + 1
        assert int(keep.sum()) == needed
        assert float(p[keep].min()) >= float(p[~keep].max())
        assert float(p[keep].sum()) >= rate - 1e-6


def test_truncation_is_normalised_and_always_keeps_the_top() -> None:
    whole = log_p(3)
    cut = truncate(whole, torch.tensor([0.01, 0.5, 0.9]))
    torch.testing.assert_close(total(cut), torch.ones(ROWS, TOKENS))
    assert torch.equal(cut.argmax(-1), whole.argmax(-1))
    assert torch.equal((cut[0] > FLOOR).sum(-1), torch.ones(TOKENS, dtype=torch.int64))


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0, 5.0])
def test_temperature_divides_log_p(temperature: float) -> None:
    whole = log_p(4, spread=0.5)
    expected = (whole.double() / temperature).softmax(-1).float()
    torch.testing.assert_close(
        power(whole, torch.full((ROWS, TOKENS), 1 / temperature)), expected, rtol=1e-4, atol=1e-6
    )


def test_a_high_temperature_does_not_revive_truncated_codes() -> None:
    cut = truncate(log_p(5), torch.full((ROWS,), 0.5))
    dropped = cut == FLOOR
    assert dropped.any()
    hot = power(cut, torch.full((ROWS, TOKENS), 0.2))
    assert float(hot[dropped].max()) == 0
