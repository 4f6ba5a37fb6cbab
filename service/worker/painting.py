"""A picture in progress for people to look at: what is there in colour, what is to come in grey."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.triton.contract import Float16, UInt8

GREY = 128
MOST_PIXELS = 64
"""The longer side of a preview: one of noise, the worst there is, takes 13 kB then."""

Mask = NDArray[np.bool_]


def grid_of(tokens: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a picture's tokens: of all the ways to lay them out, the one nearest to its shape."""
    ways = [(rows, tokens // rows) for rows in range(1, tokens + 1) if tokens % rows == 0]
    return min(ways, key=lambda way: abs(np.log(way[0] * width / (way[1] * height))))


def paint(pixels: UInt8, masked: Mask) -> UInt8:
    """UINT8 [H, W, 3] with the cells of the masked tokens [L] in grey."""
    height, width, _ = pixels.shape
    rows, columns = grid_of(len(masked), height, width)
    cell = masked.reshape(rows, columns)
    y, x = np.arange(height) * rows // height, np.arange(width) * columns // width
    return np.where(cell[y][:, x][..., None], np.uint8(GREY), pixels)


def small_png(pixels: UInt8) -> str:
    """No larger than MOST_PIXELS, as a PNG in base64."""
    image = Image.fromarray(pixels)
    image.thumbnail((MOST_PIXELS, MOST_PIXELS), Image.Resampling.BOX)
    return png(image)


def purity_png(purity: Float16, height: int, width: int) -> str:
    """Purity [L] of a picture of that size as a grey PNG in base64, a pixel for each token: white is 1."""
    grid = grid_of(len(purity), height, width)
    grey = (purity.astype(np.float32).clip(0, 1) * 255).round().astype(np.uint8)
    return png(Image.fromarray(grey.reshape(grid)))


def png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()
