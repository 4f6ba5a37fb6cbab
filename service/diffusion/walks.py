"""How each sampler goes from a masked grid to a picture: how many positions it reveals when, and which it prefers.

Each function of SAMPLERS' rows is here: (parameters, canvas) → Walk. numpy only, and deterministic: gateway and worker
come to the same one. Raises InvalidRequest for what cannot be. What is masked is filled as a picture of its own would
be, in so many fewer evaluations as it is smaller than the whole.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from service.diffusion.noise import evaluation_uniforms
from service.diffusion.plan import ANCESTRAL
from service.errors import InvalidRequest
from service.messages import Parameters

Int32 = NDArray[np.int32]
Floats = NDArray[np.float64]
GAMMA_BAR = (0.000009, 0.99999)
"""Cumulative mask probability at the first and the last timestep; linear between."""
BY_PURITY, BY_CHANCE, BY_ORDER = (1.0, 0.0, 1.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0)
"""Which masked positions go first: coefficients of log purity, log p(code), Gumbel noise and −order."""
MASKGIT_NOISE = 4.5
"""Choice temperature at the first evaluation; it falls linearly to 0 (arXiv 2202.04200)."""
OF_THE_WALK = 2**62
"""Evaluation number whose noise decides about the walk itself; counts of evaluation e take the number after it + e."""


@dataclass(frozen=True)
class Canvas:
    """One image before its first evaluation: ``masked`` of its ``tokens`` have no code yet."""

    tokens: int
    masked: int
    timesteps: int
    image: int = 0

    def share(self, steps: int) -> int:
        """Evaluations for what is masked, where the whole would take ``steps``."""
        return -(-steps * self.masked // self.tokens)

    def require_few(self, parameters: Parameters) -> None:
        if parameters.steps > self.tokens:
            most = f"must be at most {self.tokens} (the tokens of an image) with sampler {parameters.sampler!r}"
            raise InvalidRequest("steps", most)


@dataclass(frozen=True)
class Walk:
    """What a sampler decides. ``reveal`` INT32 [N]; ``score`` FP32 [4] or [N, 4]; ``order`` FP32 [L].

    ``timestep`` INT32 [N+1]: the index given to the network, and at the end -1; ``visible`` [N]: the share of the
    picture that is there before each evaluation.
    """

    reveal: Int32
    timestep: Int32
    visible: Floats
    score: NDArray[np.float32]
    sharpen: float = 0.0
    order: NDArray[np.float32] | None = None


def strided(evaluations: int, timesteps: int) -> Int32:
    """The N+1 timesteps T-1 … -1 of an exact stride through the schedule, or its first T."""
    left = timesteps * np.arange(evaluations, -1, -1, dtype=np.int32)
    return -(-left // evaluations) - 1  # whole numbers: a rounded quotient would now and then miss by one


def nearest_timestep(masked: Floats, timesteps: int) -> Int32:
    """The timestep whose cumulative mask probability is nearest to each masked fraction."""
    low, high = GAMMA_BAR
    exact = (masked - low) / (high - low) * (timesteps - 1)
    nearest: Floats = np.rint(exact).clip(0, timesteps - 1)
    return nearest.astype(np.int32)


def revealing(
    reveal: Int32,
    canvas: Canvas,
    score: tuple[float, ...] | Floats,
    sharpen: float = 0.0,
    order: NDArray[np.float32] | None = None,
) -> Walk:
    """A walk that reveals ``reveal`` [N] positions, the network told at each how much is masked."""
    masked = (canvas.masked - np.cumsum(reveal) + reveal) / canvas.tokens
    timestep = np.append(nearest_timestep(masked, canvas.timesteps), np.int32(-1))
    return Walk(reveal.astype(np.int32), timestep, 1 - masked, np.asarray(score, np.float32), sharpen, order)


def even_evaluations(parameters: Parameters, canvas: Canvas) -> int:
    """max(steps, ⌈tokens / z⌉), of the whole or its share."""
    if parameters.tokens_per_step is None:
        raise InvalidRequest(
            "tokens_per_step", f"is needed by sampler {parameters.sampler!r}; from 1 to {canvas.tokens}"
        )
    canvas.require_few(parameters)
    return max(canvas.share(parameters.steps), -(-canvas.masked // parameters.tokens_per_step))


def even(parameters: Parameters, canvas: Canvas, score: tuple[float, ...], sharpen: float = 0.0) -> Walk:
    """Counts that differ by at most one and never exceed ``tokens_per_step``.

    With ``final_resample`` the last evaluation draws every position anew from p(x_0), as the paper's code does.
    """
    n = even_evaluations(parameters, canvas)
    reveal = np.diff(np.arange(n + 1) * canvas.masked // max(n, 1))
    walk = revealing(reveal, canvas, score, sharpen)
    if parameters.final_resample:
        walk.reveal[-1:] = ANCESTRAL
    return walk


def purity(parameters: Parameters, canvas: Canvas) -> Walk:
    """Algorithm 2: positions by purity, and Eq. 11's sharpening."""
    return even(parameters, canvas, BY_PURITY, parameters.purity_r)


def uniform(parameters: Parameters, canvas: Canvas) -> Walk:
    return even(parameters, canvas, BY_CHANCE)


def ancestral(parameters: Parameters, canvas: Canvas) -> Walk:
    """Strides through the schedule from where so much is masked, every position from the posterior at each."""
    low, high = GAMMA_BAR
    first = int(nearest_timestep(np.array(canvas.masked / canvas.tokens), canvas.timesteps))
    n = min(canvas.share(parameters.steps), first + 1)
    timestep = strided(n, first + 1) if n else np.array([-1], np.int32)
    visible = 1 - (low + (high - low) * timestep[:-1] / max(canvas.timesteps - 1, 1))
    return Walk(np.full(n, ANCESTRAL, np.int32), timestep, visible, np.asarray(BY_CHANCE, np.float32))


def maskgit(parameters: Parameters, canvas: Canvas) -> Walk:
    """The cosine schedule and the confidence with falling noise of MaskGIT (arXiv 2202.04200)."""
    canvas.require_few(parameters)
    n, masked, reveal = canvas.share(parameters.steps), canvas.masked, []
    for i in range(1, n + 1):
        left = max(1, min(masked - 1, math.floor(canvas.masked * math.cos(math.pi / 2 * i / n)))) if i < n else 0
        reveal.append(masked - left)
        masked = left
    noise = MASKGIT_NOISE * (1 - np.arange(1, n + 1) / max(n, 1))
    score = np.stack([np.zeros(n), np.ones(n), noise, np.zeros(n)], axis=1)
    return revealing(np.array(reveal, np.int32), canvas, score)


def halton(parameters: Parameters, canvas: Canvas) -> Walk:
    """Positions along a Halton sequence, far apart from one another (arXiv 2503.17076)."""
    canvas.require_few(parameters)
    n = canvas.share(parameters.steps)
    i = np.arange(1, n + 1)
    wanted = np.floor(canvas.masked * (1 - 2 / np.pi * np.arccos(i / max(n, 1)))).astype(np.int64)
    committed = np.maximum.accumulate(np.maximum(i, wanted))
    committed[-1:] = canvas.masked
    start = evaluation_uniforms(parameters.seed, canvas.image, OF_THE_WALK, 1)[0, 0]
    order = halton_order(math.isqrt(canvas.tokens), int(start * canvas.tokens))
    return revealing(np.diff(committed, prepend=0), canvas, BY_ORDER, order=order)


def halton_order(width: int, start: int) -> NDArray[np.float32]:
    """The rank FP32 [width²] of each cell, in the order in which the sequence first meets them, from ``start`` on."""
    ranks = np.empty(width**2, np.float32)
    ranks[np.roll(halton_cells(width), -start)] = np.arange(width**2)
    return ranks


@cache
def halton_cells(width: int) -> tuple[int, ...]:
    """Every cell of the grid once, as the sequence meets them: the same for every picture of a size."""
    cells: dict[int, None] = {}
    j = 0
    while len(cells) < width**2:
        j += 1
        cells[int(radical_inverse(j, 2) * width) * width + int(radical_inverse(j, 3) * width)] = None
    return tuple(cells)


def radical_inverse(number: int, base: int) -> float:
    """The digits of ``number`` mirrored at the point: Φ_base."""
    value, place = 0.0, 1.0 / base
    while number:
        number, digit = divmod(number, base)
        value += digit * place
        place /= base
    return value


MASKING_SCHEDULES = {
    "cosine": lambda t: 1 - np.cos(np.pi / 2 * (1 - t)),
    "linear": lambda t: 1 - t,
    "poly": lambda t: 1 - t**2,
}
"""α(t): the share that is not masked at time t, from 1 at t = 0 to 0 at t = 1 (arXiv 2406.04329)."""


def md4(parameters: Parameters, canvas: Canvas) -> Walk:
    """The reverse of continuous-time masking: how many appear in a step is drawn from the seed (arXiv 2406.04329)."""
    alpha = MASKING_SCHEDULES[parameters.masking_schedule](np.linspace(1, 0, canvas.share(parameters.steps) + 1))
    chance = np.diff(alpha) / (1 - alpha[:-1])
    masked, reveal = canvas.masked, []
    for i, p in enumerate(chance[:-1]):
        drawn = evaluation_uniforms(parameters.seed, canvas.image, OF_THE_WALK + 1 + i, masked)[:, 0]
        reveal.append(int((drawn < p).sum()))
        masked -= reveal[-1]
    counts = np.array([*reveal, masked])
    return revealing(counts[counts > 0], canvas, BY_CHANCE)
