"""The forward process in float64 by brute force: one-step matrices, built from the cumulative values and multiplied."""

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def matrix(alpha: float, beta: float, gamma: float, codes: int) -> Matrix:
    """q(to | from) at [from, to]; the last index is the mask, which stays."""
    q = np.full((codes + 1, codes + 1), beta)
    q[np.arange(codes), np.arange(codes)] += alpha
    q[:, codes] = gamma
    q[codes] = np.eye(codes + 1)[codes]
    return q


def one_step_matrices(timesteps: int, codes: int) -> list[Matrix]:
    """Q_t for t = 0 … T-1, from cumulative values linear in t."""
    alpha_bar = np.concatenate([[1], np.linspace(0.99999, 0.000009, timesteps)])
    gamma_bar = np.concatenate([[0], np.linspace(0.000009, 0.99999, timesteps)])
    alpha = alpha_bar[1:] / alpha_bar[:-1]
    gamma = 1 - (1 - gamma_bar[1:]) / (1 - gamma_bar[:-1])
    beta = (1 - alpha - gamma) / codes
    return [matrix(a, b, g, codes) for a, b, g in zip(alpha, beta, gamma, strict=True)]


def between(steps: list[Matrix], s: int, t: int) -> Matrix:
    """q(x_t | x_s) as the product of the steps s+1 … t; s = -1 is x_0."""
    product = np.eye(len(steps[0]))
    for q in steps[s + 1 : t + 1]:
        product = product @ q
    return product
