"""Small parts of the worker: images, packing of grids."""

import io

import numpy as np
import pytest
from PIL import Image

from service.engine.grid import pack, tokens_sha256, unpack
from service.messages import ImageFormat
from service.worker.images import encode_image


@pytest.mark.parametrize("image_format", list(ImageFormat))
def test_images_decode_to_what_was_encoded(image_format: ImageFormat) -> None:
    pixels = np.full((8, 12, 3), (200, 40, 90), np.uint8)
    decoded = Image.open(io.BytesIO(encode_image(pixels, image_format)))
    assert decoded.format == image_format.upper()
    assert decoded.size == (12, 8)
    assert np.abs(np.asarray(decoded.convert("RGB")).astype(int) - pixels).max() <= (
        0 if image_format is ImageFormat.PNG else 6
    )


def test_a_grid_survives_packing_and_its_digest_tells_grids_apart() -> None:
    grid = np.arange(64, dtype=np.int32)
    assert (unpack(pack(grid)) == grid).all()
    other = grid.copy()
    other[63] = 0
    assert tokens_sha256(grid) != tokens_sha256(other)
    # Known answer: the digest is part of the HTTP contract.
    assert tokens_sha256(np.zeros(2, np.int32)) == "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc"
