"""What a request may say: the fields of ``POST /generate``, and pictures as Python has them."""

import io
import json
import os
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict

from PIL import Image

from service.errors import InvalidRequest

Source: TypeAlias = str | os.PathLike[str] | bytes | Image.Image
"""A picture to begin with: the path of a file, the file's bytes, a ``data:`` URL, or an opened picture."""
PICTURES = ("image", "mask")
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""What Python makes of bytes of a command line that are no text."""
LONG = 20
"""Digits that no class's number has."""
WANTED = "a path, the bytes of a file or an opened PIL.Image is wanted"
SHOWN = 200
"""Characters of a path that is none."""
DATA_URL = re.compile(r"data:[\w/+.-]*;base64,", re.ASCII)


class Options(TypedDict, total=False):
    """All but ``prompt``, ``image`` and ``mask``. What is left out takes the served model's default."""

    label: int | str
    model: str
    negative_prompt: str
    truncate_prompt: bool
    guidance_scale: float
    guidance_schedule: Literal["constant", "ramp", "interval", "cosine"] | Sequence[float]
    purity_r: float
    tokens_per_step: int
    steps: int
    sampler: Literal["purity", "uniform", "ancestral", "maskgit", "halton", "md4"]
    masking_schedule: Literal["cosine", "linear", "poly"]
    truncation_rate: float
    temperature: float
    seed: int
    n: int
    image_index: int
    purity_form: Literal["linear", "power"]
    final_resample: bool
    metadata: bool
    strength: float
    composite: bool
    pinned: Sequence[int]
    image_sha256: str
    mask_sha256: str
    format: Literal["png", "jpeg", "webp"]
    priority: Literal["interactive", "batch"]
    deadline_s: float
    webhook_url: str
    adapt: bool
    preview: bool


class Fields(Options, total=False):
    """All but ``prompt``. None is none."""

    image: Source | None
    mask: Source | None


def of_edit(image: Source, mask: Source | None, options: Options) -> Fields:
    """Raises InvalidRequest for no image, which would draw without one."""
    if image is None:
        raise InvalidRequest("image", f"{WANTED}, not None")
    return {**options, "image": image, "mask": mask}


def with_previews(fields: Fields, previews: object) -> Fields:
    """The request of who will look at previews: a short job may be over before its worker hears of a listener."""
    return {**fields, "preview": True} if previews else fields


def body_of(fields: Mapping[str, Any]) -> bytes:
    """A request in JSON; None is what was not given. Raises InvalidRequest for a picture or a text that is none."""
    given = {name: value for name, value in fields.items() if value is not None}
    sent = [f"{json.dumps(name)}:{encoded(name, value)}" for name, value in given.items()]
    return f"{{{','.join(sent)}}}".encode()


def label_from(text: str) -> int | str:
    """A class as people write it: by its number or its name."""
    return int(text) if text.isdecimal() and len(text) < LONG else text


def encoded(name: str, value: object) -> str:
    """A field's value in JSON. ``name``: for errors. Raises InvalidRequest."""
    if name not in PICTURES and isinstance(value, str) and LONE_SURROGATE.search(value):
        raise InvalidRequest(name, "has bytes that are no text in UTF-8 (allowed: text without lone surrogates)")
    try:
        return json.dumps(picture(name, value) if name in PICTURES else value, default=items)
    except (TypeError, ValueError) as error:  # a type that JSON has not, or a circle
        raise InvalidRequest(name, f"{type(value).__name__} cannot be sent: {error}") from None


def items(value: object) -> list[Any]:
    """What JSON makes of a value of none of its types. Raises TypeError."""
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return list(value)
    raise TypeError(f"JSON has no {type(value).__name__}")


def picture(name: str, source: object) -> str:
    """A picture as JSON has it. Raises InvalidRequest."""
    if isinstance(source, str) and DATA_URL.match(source):
        return source
    if not isinstance(source, str | bytes | os.PathLike | Image.Image):
        raise InvalidRequest(name, f"{WANTED}, not {type(source).__name__}")
    return b64encode(source if isinstance(source, bytes) else read(name, source)).decode()


def read(name: str, source: str | os.PathLike[str] | Image.Image) -> bytes:
    try:
        if not isinstance(source, Image.Image):
            return Path(source).read_bytes()
        file = io.BytesIO()
        source.save(file, "PNG")
        return file.getvalue()
    except (OSError, ValueError) as error:  # of Pillow, too: a mode that PNG has not, a picture that is closed or empty
        what = "this picture" if isinstance(source, Image.Image) else shortened(os.fspath(source))
        why = error.strerror if isinstance(error, OSError) else None
        raise InvalidRequest(name, f"{what} cannot be read: {why or error}") from None


def shortened(path: str) -> str:
    """For messages: it may be a whole file in base64."""
    return path if len(path) <= SHOWN else f"{path[:SHOWN]}…"
