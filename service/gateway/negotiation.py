"""What the client asked for in ``Accept`` (RFC 9110) and ``Prefer`` (RFC 7240)."""

import re
from dataclasses import dataclass
from typing import Final, Literal

from service.errors import NotAcceptable
from service.messages import ImageFormat

JSON: Final = "json"
Form = ImageFormat | Literal["json"]
"""Of an answer: JSON, or one picture's bytes in a format."""
JSON_RANGES = ("application/json", "application/*", "*/*")
WAIT = re.compile(r"wait\s*=\s*\"?(\d{1,9})\"?")


@dataclass(frozen=True)
class Preference:
    """``applied`` is the value of Preference-Applied, None when nothing was asked for."""

    wait_s: float
    keep_on_hangup: bool
    applied: str | None


def read_prefer(header: str, limit_s: float) -> Preference:
    """How long to wait for the result, at most ``limit_s``. Preferences we do not know are ignored, as the RFC asks."""
    wanted = [part.split(";")[0].strip().lower() for part in header.split(",")]
    waits = [float(match[1]) for part in wanted if (match := WAIT.fullmatch(part))]
    respond_async = "respond-async" in wanted
    applied = ["respond-async"] * respond_async + [f"wait={wait:.0f}" for wait in waits[:1]]
    wait_s = min(waits[0], limit_s) if waits else 0.0 if respond_async else limit_s
    return Preference(wait_s, respond_async, ", ".join(applied) or None)


def media_ranges(accept: str) -> list[str]:
    """The media ranges of an Accept header, most wanted first, without those of quality 0."""
    weighted = []
    for part in accept.split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        weight = float(quality) if re.fullmatch(r"[01](\.\d{0,3})?", quality) else 0.0
        if media and weight > 0:
            weighted.append((-weight, media))
    return [media for _, media in sorted(weighted, key=lambda pair: pair[0])]


def read_accept(header: str, asked: ImageFormat | None, default: ImageFormat) -> Form:
    """The form of the answer; ``asked`` is the body's ``format``. Raises NotAcceptable."""
    formats = [asked] if asked else [default, *ImageFormat]
    for media in media_ranges(header or "*/*"):
        if media in JSON_RANGES:
            return JSON
        for candidate in formats:
            if media in ("image/*", candidate.media_type):
                return candidate
    offered = ", ".join(["application/json", *(f.media_type for f in dict.fromkeys(formats))])
    raise NotAcceptable(f"Accept: {header} names nothing this request can be answered with; it can be: {offered}")
