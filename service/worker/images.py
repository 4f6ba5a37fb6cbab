"""Pixels to encoded files, and the picture that a job starts from."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.errors import InferenceFailed
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


def read_image(file: bytes) -> NDArray[np.uint8]:
    """A file as the gateway writes it → UINT8 [H, W, 3]. Raises InferenceFailed."""
    try:
        return np.array(Image.open(io.BytesIO(file), formats=["PNG"]).convert("RGB"))
    except OSError as error:
        raise InferenceFailed(f"the picture that the job starts from cannot be read: {error}") from error


def put_back(drawn: NDArray[np.uint8], original: NDArray[np.uint8], mask: bytes) -> NDArray[np.uint8]:
    """``drawn`` where the mask has a bit, and ``original`` elsewhere; both UINT8 [H, W, 3]."""
    height, width, _ = drawn.shape
    bits = np.unpackbits(np.frombuffer(mask, np.uint8), count=height * width)
    return np.where(bits.reshape(height, width, 1) == 1, drawn, original)
