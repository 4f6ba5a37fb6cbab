"""What an edited picture begins with: which positions have no code yet, which have one, and which keep theirs for good.

numpy only, and deterministic: the gateway counts what the worker will find.
"""

import math
from base64 import b64decode, b64encode
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.diffusion.noise import evaluation_uniforms
from service.messages import Edit

Int32 = NDArray[np.int32]
Flags = NDArray[np.bool_]
OF_THE_START = 2**61
"""Evaluation number whose noise decides which positions lose their codes."""
FREE = -1
"""In ``pinned``: this position may change."""


@dataclass(frozen=True)
class Start:
    """``tokens`` INT32 [L], K where masked; ``pinned`` INT32 [L]: the code that a position keeps, or FREE."""

    tokens: Int32
    pinned: Int32


def pack_positions(positions: Flags) -> str:
    return b64encode(np.packbits(positions).tobytes()).decode()


def unpack_positions(packed: str, tokens: int) -> Flags:
    bits = np.frombuffer(b64decode(packed), np.uint8)
    return np.unpackbits(bits, count=tokens).astype(bool)


def free_positions(edit: Edit | None, tokens: int) -> Flags:
    """BOOL [L]: those that may change."""
    free = np.ones(tokens, bool)
    if edit and edit.changes is not None:
        free &= unpack_positions(edit.changes, tokens)
    if edit and edit.pinned is not None:
        free &= np.array(edit.pinned) == FREE
    return free


def masked_at_first(edit: Edit | None, tokens: int) -> int:
    """How many positions have no code before the first evaluation."""
    free = int(free_positions(edit, tokens).sum())
    return math.floor(free * edit.strength + 0.5) if edit else free


def start_of(edit: Edit, seed: int, image: int, read: Int32 | None, tokens: int, codes: int) -> Start:
    """``read``: the picture's own tokens INT32 [L]; None: it has no picture.

    A larger strength masks what a smaller one does, and more.
    """
    free = free_positions(edit, tokens)
    known = np.full(tokens, codes, np.int32) if read is None else read
    if edit.pinned is not None:
        known = np.where(np.array(edit.pinned) == FREE, known, edit.pinned)
    chance = evaluation_uniforms(seed, image, OF_THE_START, tokens)[:, 0]
    lost = np.argsort(np.where(free, chance, 2), kind="stable")[: masked_at_first(edit, tokens)]
    grid = known.astype(np.int32)
    grid[lost] = codes
    return Start(grid, np.where(free, FREE, known).astype(np.int32))
