"""A sheet of pictures that differ in one or two parameters: what ``vqd generate --grid`` makes."""

import io
import math
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from service.client.blocking.client import Client
from service.errors import InvalidRequest
from service.messages import MAX_SEED

SHORT = {"s": "guidance_scale", "r": "purity_r", "z": "tokens_per_step"}
"""The paper's letters."""
FIELDS = {
    "guidance_scale": float,
    "purity_r": float,
    "tokens_per_step": int,
    "steps": int,
    "temperature": float,
    "truncation_rate": float,
    "sampler": str,
    "seed": int,
}
"""What may differ, and what its values are; the service knows their ranges."""
MOST = 100
"""Pictures of a sheet."""
CELL, MARGIN = 96, 6
"""Pixels: a picture is enlarged to at least CELL."""
Values = tuple[Any, ...]


@dataclass(frozen=True)
class Axis:
    """``name`` is what the person called the field."""

    name: str
    values: Values

    @property
    def field(self) -> str:
        return SHORT.get(self.name, self.name)

    def labels(self) -> list[str]:
        return [f"{self.name} = {value}" for value in self.values]


def read_axes(text: str) -> list[Axis]:
    """Of ``s=1,2,3 r=0,1``: across, then down. Raises InvalidRequest, which names what may stand there."""
    axes = [read_axis(part) for part in text.split()]
    if not 1 <= len(axes) <= 2 or len({axis.field for axis in axes}) < len(axes):
        raise InvalidRequest("--grid", "takes one or two different parameters, such as 's=1,2,3 r=0,1'")
    if (count := math.prod(len(axis.values) for axis in axes)) > MOST:
        raise InvalidRequest("--grid", f"would have {count} pictures; at most {MOST} fit on a sheet")
    return axes


def read_axis(text: str) -> Axis:
    name, _, values = text.partition("=")
    kind = FIELDS.get(SHORT.get(name, name))
    if kind is None:
        raise InvalidRequest("--grid", f"{name!r} is none of {', '.join((*SHORT, *FIELDS))}")
    try:
        return Axis(name, tuple(kind(value) for value in values.split(",")))
    except ValueError:
        raise InvalidRequest("--grid", f"{text!r} has a value that is no {kind.__name__}") from None


def cells(fields: Mapping[str, Any], axes: Sequence[Axis]) -> Iterator[dict[str, Any]]:
    """A request for each picture, row by row; all with the same seed, unless that is what differs."""
    shared = {"seed": secrets.randbelow(MAX_SEED + 1)} | dict(fields) | {"n": 1, "format": "png"}
    across, *down = axes
    for row in down[0].values if down else (None,):
        for value in across.values:
            yield shared | {across.field: value} | ({down[0].field: row} if down else {})


def draw_grid(
    client: Client, fields: Mapping[str, Any], axes: Sequence[Axis], on_picture: Callable[[], object] = lambda: None
) -> bytes:
    """The sheet as PNG. All jobs are sent before the first is awaited, so they share batches. Raises what ends one."""
    pictures: list[Image.Image] = []
    with ExitStack() as jobs:  # who is interrupted leaves none behind
        for job in [jobs.enter_context(client.submit(**cell)) for cell in cells(fields, axes)]:
            pictures.append(job.wait().images[0].pil().convert("RGB"))
            on_picture()
    return sheet(pictures, axes)


def sheet(pictures: Sequence[Image.Image], axes: Sequence[Axis]) -> bytes:
    """Pictures row by row, with a label above each column and before each row."""
    across, *down = axes
    font = ImageFont.load_default()
    scale = max(1, -(-CELL // pictures[0].width))
    width, height = pictures[0].width * scale, pictures[0].height * scale
    rows = down[0].labels() if down else [""]
    left = round(max(font.getlength(label) for label in rows)) + (2 * MARGIN if down else MARGIN)
    top = 4 * MARGIN
    columns = len(across.values)
    page = Image.new("RGB", (left + columns * (width + MARGIN), top + len(rows) * (height + MARGIN)), (255, 255, 255))
    pen = ImageDraw.Draw(page)
    for column, label in enumerate(across.labels()):
        pen.text((left + column * (width + MARGIN), MARGIN), label, fill=(0, 0, 0), font=font)
    for row, label in enumerate(rows):
        pen.text((MARGIN, top + row * (height + MARGIN) + height // 2), label, fill=(0, 0, 0), font=font)
    for place, picture in enumerate(pictures):
        row, column = divmod(place, columns)
        enlarged = picture.resize((width, height), Image.Resampling.NEAREST)
        page.paste(enlarged, (left + column * (width + MARGIN), top + row * (height + MARGIN)))
    file = io.BytesIO()
    page.save(file, "PNG")
    return file.getvalue()
