"""Files of strangers to pixels: what is too large is refused by its header, and nothing else than pictures is read."""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from service.gateway.problems import FieldError, InvalidFields

FORMATS = ("PNG", "JPEG", "WEBP")
FILE = "a PNG, JPEG or WebP file, not animated"
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)
"""The tag of Exif that says how a camera was held, and its values for a picture that lies on its side."""
FINER = 2
"""A JPEG is decoded at the smallest of its sizes that has so many pixels, each way, for one of ours."""
HALF = 128
# Pillow refuses what is far beyond its own limit, and warns below: both are refusals here.
warnings.simplefilter("error", Image.DecompressionBombWarning)
# What it finds wrong in Exif is nothing for the log.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

UInt8 = NDArray[np.uint8]
Flags = NDArray[np.bool_]
Size = tuple[int, int]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Limits:
    """Of one file. ``pixels`` before decoding."""

    bytes: int
    pixels: int


@dataclass(frozen=True)
class Sent:
    """A file whose header was read. ``size``: width and height as it is meant to be seen."""

    field: str
    image: Image.Image
    turned: bool

    @property
    def size(self) -> Size:
        return self.upright(self.image.size)

    def upright(self, size: Size) -> Size:
        """Between a size as stored and as seen, either way."""
        return size[::-1] if self.turned else size

    def wrong(self, message: str, allowed: str = FILE) -> InvalidFields:
        return InvalidFields([FieldError(self.field, message, allowed)])


def read_header(field: str, data: bytes, limits: Limits) -> Sent:
    """Raises InvalidFields, naming ``field``."""
    if len(data) > limits.bytes:
        raise refused(field, f"it has {len(data)} bytes", f"at most {limits.bytes} bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise too_many_pixels(field, "more", limits) from None
    except Exception:  # Pillow's parsers raise whatever they stumble over in a broken file
        raise refused(field, "it is no picture that can be read", FILE) from None
    if width * height > limits.pixels:
        raise too_many_pixels(field, f"{width}x{height}", limits)
    # What cameras write beside a JPEG, in the same file, is no animation.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise refused(field, "it is animated", FILE)
    return Sent(field, image, orientation(image) in TURNED)


def orientation(image: Image.Image) -> int:
    if "exif" not in image.info:  # Pillow would decode a PNG to look behind its pixels
        return 1
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # broken Exif: the picture is taken as it is stored
        return 1
    return found if isinstance(found, int) else 1


def refused(field: str, message: str, allowed: str) -> InvalidFields:
    return InvalidFields([FieldError(field, message, allowed)])


def too_many_pixels(field: str, what: str, limits: Limits) -> InvalidFields:
    return refused(field, f"it has {what} pixels", f"at most {limits.pixels} pixels")


def middle(size: Size, wanted: Size) -> Box:
    """The largest part of ``size`` in the middle that has the shape of ``wanted``."""
    width, height = size
    scale = min(width / wanted[0], height / wanted[1])
    left, top = (width - wanted[0] * scale) / 2, (height - wanted[1] * scale) / 2
    return left, top, width - left, height - top


def pixels_of(sent: Sent, wanted: Size) -> UInt8:
    """The middle of the picture at ``wanted`` width and height [H, W, 3], on white. Raises InvalidFields."""
    stored = sent.upright(wanted)
    width, height = sent.image.size
    left, top, right, bottom = middle(sent.image.size, stored)
    needed = FINER * stored[0] * width / (right - left), FINER * stored[1] * height / (bottom - top)
    sent.image.draft("RGB", (int(needed[0]) + 1, int(needed[1]) + 1))
    image = loaded(sent)
    small = image.resize(stored, Image.Resampling.LANCZOS, middle(image.size, stored))
    small = upright(sent, small)
    if small.mode == "RGBA":
        white = Image.new("RGBA", small.size, "white")
        small = Image.alpha_composite(white, small).convert("RGB")
    return np.asarray(small)


def changes_of(sent: Sent, wanted: Size) -> Flags:
    """Where a mask of the whole picture lets its middle change, BOOL [H, W] of ``wanted``: where half of a cell or more
    is transparent, or white if nothing is transparent at all."""
    image = loaded(sent)
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    if alpha is not None and alpha.getextrema() != (255, 255):
        marked = alpha.point(lambda value: 255 if value < HALF else 0)
    else:
        marked = image.convert("L").point(lambda value: 255 if value >= HALF else 0)
    stored = sent.upright(wanted)
    cells = marked.resize(stored, Image.Resampling.BOX, middle(image.size, stored))
    return np.asarray(upright(sent, cells)) >= HALF


def upright(sent: Sent, image: Image.Image) -> Image.Image:
    image.info = dict(sent.image.info)
    return ImageOps.exif_transpose(image) if orientation(sent.image) != 1 else image


def loaded(sent: Sent) -> Image.Image:
    """All of it, in RGB or RGBA. Raises InvalidFields for a file that ends too early, or is broken."""
    image: Image.Image = sent.image
    try:
        image.load()
        if image.mode.startswith("I"):  # 16 bits of grey
            image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
        mode = "RGBA" if image.has_transparency_data else "RGB"
        return image if image.mode == mode else image.convert(mode)
    except Exception:  # as in ``read_header``
        raise sent.wrong("it is cut off, or broken") from None
