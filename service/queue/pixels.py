"""The picture that a job starts from, at the model's size: kept in the job's hash, and gone with its end."""

from dataclasses import dataclass


@dataclass(frozen=True, repr=False)
class Pixels:
    """``image``: a PNG file. ``mask``: a bit for each pixel, row by row, 1 where the picture changes; empty: none."""

    image: bytes = b""
    mask: bytes = b""


NO_PIXELS = Pixels()
