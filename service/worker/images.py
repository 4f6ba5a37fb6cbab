"""Pixels to encoded files."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.messages import ImageFormat

OPTIONS: dict[ImageFormat, dict[str, int | bool]] = {
    ImageFormat.PNG: {"optimize": False},
    ImageFormat.JPEG: {"quality": 92, "subsampling": 0},
    ImageFormat.WEBP: {"quality": 92, "method": 4},
}


def encode_image(pixels: NDArray[np.uint8], image_format: ImageFormat) -> bytes:
    """UINT8 [H, W, 3] as a PNG, JPEG or WebP file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format.value, **OPTIONS[image_format])
    return buffer.getvalue()
