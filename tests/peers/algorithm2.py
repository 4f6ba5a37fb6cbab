"""Algorithm 2 of arXiv 2205.16007 as sampling.md states it: slow, literal, float64, one position at a time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
NEAR = 1e-5
"""Two numbers this near are a tie for float32."""


@dataclass
class Evaluation:
    """What one evaluation decided, and the positions whose decision was a near-tie."""

    tokens: NDArray[np.int64]
    purity: Vector
    ties: set[int]


def log_softmax(v: Vector) -> Vector:
    shifted = v - v.max()
    return shifted - np.log(np.exp(shifted).sum())


def predicted(conditional: Vector, null: Vector, s: float, rate: float) -> Vector:
    """log p(x_0) of one position from two rows of logits: Eq. 7 on x_0, then truncation."""
    log_y = np.clip(log_softmax(conditional), -70, 0)
    log_null = np.clip(log_softmax(null), -70, 0)
    log_p = log_y
    if s != 1:
        log_p = log_null + s * (log_y - log_null)
        log_p = np.clip(log_p - np.log(np.exp(log_p).sum()), -70, 0)
    if rate < 1:
        kept, mass = [], 0.0
        for code in np.argsort(-log_p, kind="stable"):
            if kept and mass >= rate:
                break
            kept.append(code)
            mass += np.exp(log_p[code])
        truncated = np.full_like(log_p, -np.inf)
        truncated[kept] = log_p[kept]
        log_p = truncated - np.log(np.exp(truncated).sum())
    return log_p


def adjusted(log_p: Vector, purity: float, largest: float, r: float, form: str, temperature: float) -> Vector:
    """Eq. 11 in either form, then temperature: p of one position."""
    log_p = (1 + r * purity / largest) * log_p if form == "linear" else log_p / purity**r
    return np.exp(log_softmax(log_softmax(log_p) / temperature))


def inverse_cdf(p: Vector, u: float) -> tuple[int, bool]:
    """(code, near-tie?)."""
    total = 0.0
    for code in range(len(p)):
        total += p[code]
        if u < total:
            return code, min(total - u, u - (total - p[code])) < NEAR
    return int(np.flatnonzero(p)[-1]), True


def evaluate(  # noqa: PLR0913, PLR0917  the paper's symbols, as they are
    tokens: NDArray[np.int64],
    logits: tuple[Vector, Vector],
    uniforms: Vector,
    count: int,
    r: float,
    form: str = "linear",
    s: float = 1.0,
    rate: float = 1.0,
    temperature: float = 1.0,
    by_purity: bool = True,
) -> Evaluation:
    """One evaluation: logits ([L, K] with text, [L, K] without), uniforms [L, 2]. ``count`` -1: the last resampling."""
    positions, codes = logits[0].shape
    log_p = [predicted(logits[0][i], logits[1][i], s, rate) for i in range(positions)]
    purity = np.array([np.exp(row.max()) for row in log_p])
    chosen = list(range(positions))
    keys: dict[int, float] = {}
    if count >= 0:
        for i in range(positions):
            if tokens[i] == codes:
                weight = purity[i] if by_purity else 1.0
                keys[i] = np.log(weight) - np.log(-np.log(max(uniforms[i, 1], 1e-30)))
        ranked = sorted(keys, key=lambda i: -keys[i])
        chosen = ranked[:count]
    out, ties = tokens.copy(), set()
    if 0 < count < len(keys):
        edge = (keys[ranked[count - 1]] + keys[ranked[count]]) / 2
        ties |= {i for i in keys if abs(keys[i] - edge) < NEAR}
    for i in chosen:
        sharpness = r if by_purity and count >= 0 else 0.0
        p = adjusted(log_p[i], purity[i], purity.max(), sharpness, form, temperature)
        out[i], near = inverse_cdf(p, uniforms[i, 0])
        if near:
            ties.add(i)
    return Evaluation(out, purity, ties)
