"""Picture files that clients send, good and bad."""

import io
import struct
import zlib
from base64 import b64encode
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

UInt8 = NDArray[np.uint8]


def noise(width: int, height: int, seed: int = 0, channels: int = 3) -> UInt8:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def file_of(pixels: UInt8 | Image.Image, kind: str = "png", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def base64(data: bytes) -> str:
    return b64encode(data).decode()


def pixels_in(data: bytes) -> UInt8:
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG of this size by its header, with nearly nothing behind."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def half_mask(size: int) -> UInt8:
    """White on the right half."""
    mask = np.zeros((size, size), np.uint8)
    mask[:, size // 2 :] = 255
    return mask
