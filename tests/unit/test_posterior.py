"""The posterior against Bayes' rule in float64, and draw() as an inverse CDF."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from unit.forward_process import between, one_step_matrices

from service.diffusion.posterior import draw, posterior
from service.diffusion.schedule import Schedule

CODES = 6
LAST_U = 1 - 2.0**-24


def bayes(p: NDArray[np.float64], x_t: int, t: int, s: int) -> NDArray[np.float64]:
    """Σ_x0 p(x_0) q(x_t | x_s) q(x_s | x_0) / q(x_t | x_0)."""
    steps = one_step_matrices(100, CODES)
    s_to_t, to_s, to_t = between(steps, s, t), between(steps, -1, s), between(steps, -1, t)
    return sum(p[x0] * s_to_t[:, x_t] * to_s[x0] / to_t[x0, x_t] for x0 in range(CODES))


@pytest.mark.parametrize(("t", "s"), [(0, -1), (1, 0), (60, 40), (99, 98), (99, 50), (99, 0), (99, -1), (7, -1)])
def test_posterior_is_bayes_rule(t: int, s: int) -> None:
    generator = torch.Generator().manual_seed(t)
    p = (3 * torch.randn(1, CODES + 1, CODES, generator=generator)).softmax(-1)
    tokens = torch.arange(CODES + 1)[None]  # every code and the mask
    at, to = torch.tensor([t]), torch.tensor([s])
    ours = posterior(p, tokens, to < 0, Schedule(100, CODES)(at, to))
    for x_t in range(CODES + 1):
        expected = bayes(p[0, x_t].double().numpy(), x_t, t, s)
        assert expected.sum() == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(ours[0, x_t], expected, atol=1e-5)


def test_masks_stay_or_go_and_codes_never_become_masks() -> None:
    p = torch.full((1, 2, CODES), 1 / CODES)
    t, s = torch.tensor([80]), torch.tensor([30])
    q = Schedule(100, CODES)(t, s)
    masked, code = posterior(p, torch.tensor([[CODES, 2]]), s < 0, q)[0]
    assert float(masked[-1]) == pytest.approx(float(q.gamma_s / q.gamma_t))
    assert float(code[-1]) == 0


def test_rows_at_other_timesteps_do_not_touch_each_other() -> None:
    p = torch.rand(3, 4, CODES, generator=torch.Generator().manual_seed(2)).softmax(-1)
    tokens = torch.tensor([[0, CODES, 2, CODES]]).expand(3, -1)
    t, s = torch.tensor([99, 40, 5]), torch.tensor([60, 39, -1])
    schedule = Schedule(100, CODES)
    together = posterior(p, tokens, s < 0, schedule(t, s))
    for row in range(3):
        one = slice(row, row + 1)
        assert torch.equal(posterior(p[one], tokens[one], s[one] < 0, schedule(t[one], s[one])), together[one])


def drawn(p: list[float], u: list[float]) -> list[int]:
    """One distribution, many uniforms."""
    return draw(torch.tensor(p).expand(1, len(u), -1), torch.tensor([u]))[0].tolist()


def test_draws_have_their_probabilities() -> None:
    p = torch.tensor([0.5, 0.0, 0.3, 0.001, 0.199])
    n = 200_000
    u = torch.rand(1, n, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(draw(p.expand(1, n, -1), u)[0], minlength=5).double()
    positive = p > 0
    chi_square = ((counts - n * p).square() / (n * p))[positive].sum()
    assert float(chi_square) < 16.3, "3 degrees of freedom, p = 0.001"
    assert counts[1] == 0


def test_the_scale_of_p_does_not_matter() -> None:
    u = torch.rand(1, 50)
    p = torch.rand(1, 50, 7)
    assert torch.equal(draw(p, u), draw(4 * p, u))


@pytest.mark.parametrize("u", [0.0, 2.0**-24, 0.5, LAST_U])
@pytest.mark.parametrize(
    "p",
    [[0.0, 1.0, 0.0], [0.0, 0.5, 0.0, 0.5, 0.0], [0.0, 0.0, 3e-5, 0.1], [0.7, 0.1, 0.1, 0.1, 0.0], [0.1] * 10 + [0.0]],
)
def test_zero_probability_is_never_drawn(p: list[float], u: float) -> None:
    (code,) = drawn(p, [u])
    assert p[code] > 0


@pytest.mark.parametrize("u", [0.0, LAST_U])
def test_next_to_impossible_is_not_drawn_at_the_edges(u: float) -> None:
    """e^-70, the probability of a truncated code, is far below what 24 bits can ask for."""
    tiny = float(np.exp(np.float32(-70)))
    assert drawn([tiny, 1.0, tiny], [u]) == [1]


def test_the_tails_reach_the_first_and_the_last_code() -> None:
    p = [2.0**-20, *[1.0] * 8, 2.0**-20]
    assert drawn(p, [0.0, LAST_U]) == [0, 9]


def test_draws_stay_in_range_over_many_codes() -> None:
    generator = torch.Generator().manual_seed(1)
    p: Tensor = (8 * torch.randn(1, 500, 4097, generator=generator)).softmax(-1)
    for u in (0.0, LAST_U):
        codes = draw(p, torch.full((1, 500), u))
        assert int(codes.max()) <= 4096
        assert float(p.gather(-1, codes[:, :, None]).min()) > 0
