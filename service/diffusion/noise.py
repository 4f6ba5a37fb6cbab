"""All randomness of a picture, as a function of seed, image and evaluation."""

import numpy as np
from numpy.typing import NDArray


def uniforms(seed: int, image: int, first: int, count: int, tokens: int) -> NDArray[np.float32]:
    """Uniform [0, 1) numbers FP32 [count, L, 2] for evaluations first … first+count-1 of one image.

    Philox keyed by (seed, image) with the evaluation in the counter's highest word, so evaluation e has the same
    numbers whatever ran before, beside or where.
    """
    return np.stack([evaluation_uniforms(seed, image, e, tokens) for e in range(first, first + count)])


def evaluation_uniforms(seed: int, image: int, evaluation: int, tokens: int) -> NDArray[np.float32]:
    generator = np.random.Generator(np.random.Philox(key=[seed, image], counter=[0, 0, 0, evaluation]))
    return generator.random((tokens, 2), dtype=np.float32)
