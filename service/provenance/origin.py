"""What the file of a picture says of itself: written by the worker, read by ``vqd replay``.

PNG has it in text chunks, JPEG and WebP in Exif: the whole as JSON under a name of ours, and what people read where
other tools look for it (the text that AUTOMATIC1111's web interface writes). Nothing in it tells one job from another:
the same request makes the same bytes.
"""

import json
import warnings
from pathlib import Path
from typing import Any, Self

from PIL import ExifTags, Image, PngImagePlugin, TiffTags
from pydantic import JsonValue, ValidationError

from service.errors import SetupError
from service.messages import ImageFormat, Record, complaints

OURS = "vqd"
READABLE = "parameters"
MAKER = OURS.encode() + b"\0"
UNICODE = b"UNICODE\0"
"""How Exif marks a comment in UTF-16."""
EXIF_BYTES = 65_000
"""A JPEG has room for 65,533."""
for blob in (ExifTags.Base.MakerNote, ExifTags.Base.UserComment):
    # Of another type, which Pillow would guess, they are not read by those who keep to the standard.
    TiffTags.TAGS_V2_GROUPS[ExifTags.IFD.Exif][blob] = TiffTags.TagInfo(blob, blob.name, TiffTags.UNDEFINED, 1)
NAMES = {
    "steps": "Steps",
    "sampler": "Sampler",
    "guidance_scale": "CFG scale",
    "seed": "Seed",
    "image_index": "Image index",
    "model": "Model",
}


class Origin(Record):
    """``request``: what makes this one picture again, with the hashes of the pictures that it was made from."""

    version: str
    model_sha256: str
    dtype: str = ""
    backend: str = ""
    tokens_sha256: str
    request: dict[str, JsonValue]

    @property
    def software(self) -> str:
        return f"{OURS} {self.version}"

    def as_json(self) -> str:
        return json.dumps(self.model_dump(), ensure_ascii=False, separators=(",", ":"))

    def as_text(self) -> str:
        """For people, as other tools write it."""
        asked = self.request
        lines = [str(asked.get("prompt", asked.get("label", "")))]
        if "negative_prompt" in asked:
            lines.append(f"Negative prompt: {asked['negative_prompt']}")
        facts = {shown: asked[name] for name, shown in NAMES.items() if name in asked}
        facts |= {"Model hash": self.model_sha256[:10], "Version": self.software}
        return "\n".join([*lines, ", ".join(f"{name}: {value}" for name, value in facts.items())])

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises SetupError for what is no picture, or has nothing of ours in it."""
        try:
            with warnings.catch_warnings(action="ignore", category=UserWarning), Image.open(path) as image:
                image.load()  # a PNG may have its texts behind its pixels
                told = told_by(image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            why = getattr(error, "strerror", None) or error
            raise SetupError(f"this is no picture that can be read: {why}") from None
        if told is None:
            raise SetupError("it does not say what made it: it is no file of vqd's, or one without metadata")
        try:
            return cls.model_validate_json(told)
        except ValidationError as error:
            raise SetupError(f"it says what made it as this version does not know it: {complaints(error)}") from None


def told_by(image: Image.Image) -> str | bytes | None:
    """Our JSON in an opened picture; None where there is none."""
    if OURS in image.info:
        return str(image.info[OURS])
    note = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.MakerNote)
    return note.removeprefix(MAKER) if isinstance(note, bytes) and note.startswith(MAKER) else None


def as_chunks(origin: Origin) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Software", origin.software)
    chunks.add_text(READABLE, origin.as_text())  # in Latin-1 where that does, else in UTF-8
    chunks.add_itxt(OURS, origin.as_json())
    return chunks


def as_exif(origin: Origin) -> bytes | None:
    """None when it is too long even without what people read: a list of thousands of guidance scales."""
    for comment in (origin.as_text(), ""):
        exif = Image.Exif()
        exif[ExifTags.Base.Software] = origin.software
        inner = exif.get_ifd(ExifTags.IFD.Exif)
        inner[ExifTags.Base.MakerNote] = MAKER + origin.as_json().encode()
        if comment:
            inner[ExifTags.Base.UserComment] = UNICODE + comment.encode("utf-16-be")
        if len(data := exif.tobytes()) <= EXIF_BYTES:
            return data
    return None


def saved_with(origin: Origin | None, image_format: ImageFormat) -> dict[str, Any]:
    """The options with which Pillow writes it into the file."""
    if origin is None:
        return {}
    if image_format is ImageFormat.PNG:
        return {"pnginfo": as_chunks(origin)}
    exif = as_exif(origin)
    return {"exif": exif} if exif else {}
