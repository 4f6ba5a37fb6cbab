"""The schedule's strides against products of one-step matrices in float64."""

import numpy as np
import pytest
import torch
from unit.forward_process import between, matrix, one_step_matrices

from service.diffusion.schedule import Schedule

STRIDES = [(0, -1), (1, 0), (5, -1), (60, 40), (99, 98), (99, 0), (99, -1), (98, 3)]


@pytest.mark.parametrize(("t", "s"), STRIDES)
@pytest.mark.parametrize("codes", [3, 7])
def test_a_stride_is_the_product_of_its_steps(t: int, s: int, codes: int) -> None:
    q = Schedule(100, codes)(torch.tensor([t]), torch.tensor([s]))
    steps = one_step_matrices(100, codes)
    stride = matrix(float(q.alpha), float(q.beta), float(q.gamma), codes)
    to_t = matrix(float(q.alpha_t), float(q.beta_t), float(q.gamma_t), codes)
    to_s = matrix(float(q.alpha_s), float(q.beta_s), float(q.gamma_s), codes)
    # β is near 1e-8 and must keep its digits too: the posterior divides by it.
    np.testing.assert_allclose(stride, between(steps, s, t), rtol=2e-4, atol=1e-12)
    np.testing.assert_allclose(to_t, between(steps, -1, t), rtol=2e-4, atol=1e-12)
    np.testing.assert_allclose(to_s, between(steps, -1, s), rtol=2e-4, atol=1e-12)


def test_strides_compose() -> None:
    schedule = Schedule(100, 5)

    def stride(t: int, s: int) -> np.ndarray:
        q = schedule(torch.tensor([t]), torch.tensor([s]))
        return matrix(float(q.alpha), float(q.beta), float(q.gamma), 5)

    np.testing.assert_allclose(stride(40, 10) @ stride(90, 40), stride(90, 10), rtol=1e-4, atol=1e-12)


def test_rows_are_independent_and_scripted_equals_eager() -> None:
    schedule = Schedule(100, 5)
    t, s = torch.tensor([99, 60, 0]), torch.tensor([98, 40, -1])
    together, scripted = schedule(t, s), torch.jit.script(schedule)(t, s)
    for row in range(3):
        alone = schedule(t[row : row + 1], s[row : row + 1])
        assert [float(a) for a in alone] == [float(v[row]) for v in together] == [float(v[row]) for v in scripted]


def test_probabilities_are_positive_and_sum_to_one() -> None:
    """Every pair of timesteps s < t."""
    codes = 5
    pairs = torch.tensor([(t, s) for t in range(100) for s in range(-1, t)])
    q = Schedule(100, codes)(pairs[:, 0], pairs[:, 1])
    assert float(torch.stack([q.alpha, q.beta, q.gamma]).min()) > 0
    torch.testing.assert_close(q.alpha + codes * q.beta + q.gamma, torch.ones(len(pairs)), rtol=0, atol=1e-6)
