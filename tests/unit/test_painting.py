"""Previews as pictures: what is grey, how large they are, and what the purity map shows."""

import base64
import io
import math

import numpy as np
import pytest
from PIL import Image

from service.worker.painting import GREY, MOST_PIXELS, grid_of, paint, purity_png, small_png


def opened(b64_png: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(b64_png)))


@pytest.mark.parametrize(
    ("tokens", "height", "width", "grid"),
    [(64, 64, 64, (8, 8)), (1024, 256, 256, (32, 32)), (128, 64, 128, (8, 16)), (7, 64, 64, (1, 7)), (1, 8, 8, (1, 1))],
)
def test_the_tokens_are_laid_out_like_the_picture(tokens: int, height: int, width: int, grid: tuple[int, int]) -> None:
    rows, columns = grid_of(tokens, height, width)
    assert rows * columns == tokens
    assert abs(math.log(rows * width / (columns * height))) <= abs(math.log(grid[0] * width / (grid[1] * height)))


def test_the_cells_of_masked_tokens_are_grey_and_nothing_else_changes() -> None:
    pixels = np.random.default_rng(0).integers(0, 100, (64, 64, 3), dtype=np.uint8)
    masked = np.zeros(64, bool)
    masked[[0, 9, 63]] = True
    painted = paint(pixels, masked)
    grey = np.zeros((64, 64), bool)
    grey[:8, :8] = grey[8:16, 8:16] = grey[56:, 56:] = True
    assert painted.dtype == np.uint8
    assert (painted[grey] == GREY).all()
    assert np.array_equal(painted[~grey], pixels[~grey])


def test_cells_of_uneven_size_cover_the_whole_picture() -> None:
    """Ten pixels for three rows and columns."""
    painted = paint(np.zeros((10, 10, 3), np.uint8), np.ones(9, bool))
    assert (painted == GREY).all()


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(32, 32, (32, 32)), (64, 64, (64, 64)), (256, 256, (64, 64)), (128, 256, (64, 32))],
)
def test_a_preview_is_small(height: int, width: int, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    preview = small_png(noise)
    assert opened(preview).size == size
    assert len(base64.b64decode(preview)) < 3 * MOST_PIXELS**2 + 1000


def test_the_purity_map_has_a_pixel_for_each_token() -> None:
    purity = np.linspace(0, 1, 32, dtype=np.float16)
    shown = opened(purity_png(purity, 64, 128))
    assert (shown.mode, shown.size) == ("L", (8, 4))
    values = np.asarray(shown).ravel()
    assert (values[0], values[-1]) == (0, 255)
    assert np.abs(values / 255 - purity.astype(float)).max() < 0.003
