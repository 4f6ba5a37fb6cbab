"""From the picture fields of a request to what the worker is told, and what is wrong with them."""

import asyncio
import io
from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt
from typing import NamedTuple

import numpy as np
from PIL import Image

from service.diffusion.start import FREE, masked_at_first, pack_positions
from service.gateway.pictures.reading import Limits, Sent, Size, UInt8, changes_of, middle, pixels_of, read_header
from service.gateway.pictures.upload import Upload
from service.gateway.problems import FieldError, InvalidFields
from service.gateway.schemas import EDITS, GenerateRequest
from service.messages import Edit
from service.queue.pixels import NO_PIXELS, Pixels
from service.serving import ModelInfo

STRENGTH, STRENGTH_OF_A_MASK = 0.7, 1.0
"""What is drawn anew of a whole picture, and of what a mask marks, if nobody says."""
NEEDS = (
    *(("image", name) for name in ("image_sha256", "mask", "strength")),
    *(("mask", name) for name in ("mask_sha256", "composite")),
)
"""A field, and one that means nothing without it."""
DECODING = 1
"""Pictures that are decoded at once. One may take eight bytes for each of its pixels."""


class Prepared(NamedTuple):
    """``edit``: None for a request without a picture and without codes. ``masked``: positions to be drawn."""

    edit: Edit | None
    pixels: Pixels
    masked: int


def edit_errors(request: GenerateRequest, model: ModelInfo) -> Iterator[FieldError]:
    """What can be said before any picture is looked at."""
    given = {name for name in EDITS if getattr(request, name) is not None}
    if given and not model.edits:
        why = f"{model.name} begins with no pictures: its worker is of an older version"
        yield from (FieldError(name, why, "nothing for this model") for name in EDITS if name in given)
        return
    for needed, name in NEEDS:
        # ``composite: false`` asks for nothing.
        if name in given and needed not in given and getattr(request, name) is not False:
            yield FieldError(name, f"needs {needed}", f"only together with {needed}")
            return
    if request.pinned is not None:
        codes = f"{model.tokens} whole numbers from 0 to {model.codes - 1}, or {FREE} where it may change"
        if len(request.pinned) != model.tokens:
            yield FieldError("pinned", f"has {len(request.pinned)} codes", codes)
        elif not all(FREE <= code < model.codes for code in request.pinned):
            yield FieldError("pinned", "a code is out of range", codes)


@dataclass
class Pictures:
    """Prepares them, few at a time and away from the event loop."""

    limits: Limits

    def __post_init__(self) -> None:
        self.decoding = asyncio.Semaphore(DECODING)

    async def prepare(self, request: GenerateRequest, model: ModelInfo) -> Prepared:
        """Raises InvalidFields. The uploads of ``request`` are gone then, but for their hashes."""
        edit, pixels = edit_without_picture(request), NO_PIXELS
        if request.image:
            async with self.decoding:
                edit, pixels = await asyncio.to_thread(edit_of, request, request.image, model, self.limits)
        for upload in (request.image, request.mask):
            if upload:
                upload.release()
        return Prepared(edit, pixels, masked_at_first(edit, model.tokens))


def edit_without_picture(request: GenerateRequest) -> Edit | None:
    return Edit(pinned=tuple(request.pinned)) if request.pinned is not None else None


def edit_of(request: GenerateRequest, upload: Upload, model: ModelInfo, limits: Limits) -> tuple[Edit, Pixels]:
    """Raises InvalidFields."""
    check_hashes(request)
    size, side = (model.image_width, model.image_height), isqrt(model.tokens)
    image = read_header("image", upload.data, limits)
    mask = read_header("mask", request.mask.data, limits) if request.mask else None
    if mask and mask.size != image.size:
        raise mask.wrong(f"it has {shown(mask.size)} pixels", f"{shown(image.size)} pixels, as the image has")
    changes = changes_of(mask, (side, side)) if mask else None
    if mask and changes is not None and not changes.any():
        cell = shown((size[0] // side, size[1] // side))
        raise mask.wrong("it marks nothing to change", f"half of some cell of {cell} pixels, at the model's size")
    edit = Edit(
        strength=strength_of(request),
        changes=None if changes is None else pack_positions(changes.ravel()),
        pinned=None if request.pinned is None else tuple(request.pinned),
        image_sha256=upload.sha256,
        mask_sha256=request.mask.sha256 if request.mask else None,
        composite=bool(mask) and request.composite is not False,
        warnings=tuple(cut_away(image, size)),
    )
    bits = np.packbits(changes_of(mask, size)).tobytes() if mask and edit.composite else b""
    return edit, Pixels(png(pixels_of(image, size)), bits)


def check_hashes(request: GenerateRequest) -> None:
    for field, upload, sha256 in (
        ("image_sha256", request.image, request.image_sha256),
        ("mask_sha256", request.mask, request.mask_sha256),
    ):
        if upload and sha256 and upload.sha256 != sha256:
            what = field.removesuffix("_sha256")
            why = f"the {what} that was sent is another file"
            raise InvalidFields([FieldError(field, why, f"the SHA-256 of the {what} that is sent")])


def strength_of(request: GenerateRequest) -> float:
    if request.strength is not None:
        return request.strength
    return STRENGTH_OF_A_MASK if request.mask else STRENGTH


def cut_away(image: Sent, wanted: Size) -> Iterator[str]:
    """What the client should know of the size."""
    left, top, right, bottom = middle(image.size, wanted)
    kept = round(right - left), round(bottom - top)
    if kept != image.size:
        yield f"image: of its {shown(image.size)} pixels the {shown(kept)} in the middle were taken: the model's shape"


def shown(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def png(pixels: UInt8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()
