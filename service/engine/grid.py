"""A token grid as text: to be kept in a checkpoint, and to be known by its hash."""

import base64
import hashlib

import numpy as np

from service.triton.contract import Int32


def pack(tokens: Int32) -> str:
    """A grid as base64 of little-endian int32."""
    return base64.b64encode(tokens.astype("<i4").tobytes()).decode()


def unpack(packed: str) -> Int32:
    return np.frombuffer(base64.b64decode(packed), "<i4").astype(np.int32)


def tokens_sha256(tokens: Int32) -> str:
    """SHA-256 of a grid: the identity of a picture, whatever its file format."""
    return hashlib.sha256(tokens.astype("<i4").tobytes()).hexdigest()
