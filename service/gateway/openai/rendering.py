"""Pictures as the model made them, brought to the size and the compression that were asked for."""

import asyncio
import io
from dataclasses import dataclass
from typing import Any

from PIL import Image

from service.gateway.openai.sizes import Size
from service.messages import ImageFormat
from service.provenance.origin import Origin, saved_with, told_by
from service.settings import Scaling

FILTERS = {"lanczos": Image.Resampling.LANCZOS, "nearest": Image.Resampling.NEAREST}
FORMATS = [image_format.name for image_format in ImageFormat]
QUALITY = 92
"""As the worker writes JPEG and WebP."""
AT_ONCE = 2
"""Pictures that are rendered at once: each takes the memory of its pixels, and a core."""


@dataclass(frozen=True)
class Rendering:
    """``quality``: what the encoder is told; None: its usual one."""

    size: Size
    format: ImageFormat
    quality: int | None
    scaling: Scaling

    @property
    def needed(self) -> bool:
        """Whether the worker's own file is not the answer."""
        return self.size.times > 1 or self.quality is not None

    @property
    def made_in(self) -> ImageFormat:
        """What the worker is to write: nothing may be lost twice."""
        return ImageFormat.PNG if self.needed else self.format

    def render(self, file: bytes) -> bytes:
        """The worker's file → the client's, which says of itself what the other did."""
        with Image.open(io.BytesIO(file), formats=FORMATS) as made:
            told = told_by(made)
            picture = made.convert("RGB")
        if self.scaling != "off":
            picture = picture.resize(self.size.pixels, FILTERS[self.scaling])
        buffer = io.BytesIO()
        origin = None if told is None else Origin.model_validate_json(told)
        picture.save(buffer, self.format.value, **self.options(), **saved_with(origin, self.format))
        return buffer.getvalue()

    def options(self) -> dict[str, Any]:
        quality = QUALITY if self.quality is None else max(1, self.quality)
        match self.format:
            case ImageFormat.PNG:
                return {}
            case ImageFormat.JPEG:
                return {"quality": quality, "subsampling": 0}
            case ImageFormat.WEBP:
                return {"quality": quality, "method": 4}


def size_in(file: bytes) -> Size:
    """That of a worker's file."""
    with Image.open(io.BytesIO(file), formats=FORMATS) as made:
        return Size(*made.size)


class Renderer:
    """Renders in threads, only so many at once."""

    def __init__(self) -> None:
        self.room = asyncio.Semaphore(AT_ONCE)

    async def rendered(self, rendering: Rendering, file: bytes) -> bytes:
        """A worker's file as it was asked for."""
        return await self.render(rendering, file) if rendering.needed else file

    async def render(self, rendering: Rendering, file: bytes) -> bytes:
        async with self.room:
            return await asyncio.to_thread(rendering.render, file)
