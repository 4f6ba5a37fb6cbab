"""A token grid as text: to be kept in a checkpoint and read from there, and to be known by its hash."""

import base64
import hashlib
from collections.abc import Sequence

import numpy as np

from service.messages import Checkpoint
from service.serving import ModelInfo
from service.triton.contract import Int32


def pack(tokens: Int32) -> str:
    """A grid as base64 of little-endian int32."""
    return base64.b64encode(tokens.astype("<i4").tobytes()).decode()


def unpack(packed: str) -> Int32:
    return np.frombuffer(base64.b64decode(packed), "<i4").astype(np.int32)


def tokens_sha256(tokens: Int32) -> str:
    """SHA-256 of a grid: the identity of a picture, whatever its file format."""
    return hashlib.sha256(tokens.astype("<i4").tobytes()).hexdigest()


def saved_grids(checkpoint: Checkpoint | None, info: ModelInfo, evaluations: Sequence[int]) -> list[tuple[Int32, int]]:
    """Grid and evaluations done of each image, as far as the checkpoint is any use; else none.

    ``evaluations``: of each image's plan. A picture is made by one model, so another one's grids are left aside.
    """
    if checkpoint is None or checkpoint.model not in ("", info.fingerprint):
        return []
    try:
        saved = [(unpack(row.tokens), row.evaluation) for row in checkpoint.rows]
    except ValueError:  # no base64, or no whole numbers
        return []
    if len(saved) != len(evaluations):
        return []
    fit = (
        len(grid) == info.tokens and grid.min() >= 0 and grid.max() <= info.codes and 0 <= done <= planned
        for (grid, done), planned in zip(saved, evaluations, strict=True)
    )
    return saved if all(fit) else []
