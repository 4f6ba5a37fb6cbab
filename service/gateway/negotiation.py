"""What the client asked for in ``Accept`` (RFC 9110) and ``Prefer`` (RFC 7240)."""

import re
from dataclasses import dataclass
from typing import Final, Literal

from service.errors import NotAcceptable
from service.messages import ImageFormat

JSON: Final = "json"
Form = ImageFormat | Literal["json"]
"""Of an answer: JSON, or one picture's bytes in a format."""
QUALITY = re.compile(r"\d(\.\d*)?|\.\d+")
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


@dataclass(frozen=True)
class MediaRange:
    """One of an Accept header. Quality 0 excludes what it covers."""

    media: str
    quality: float
    place: int

    @property
    def specificity(self) -> int:
        return 2 - self.media.count("*")

    def covers(self, media_type: str) -> bool:
        major, _, minor = self.media.partition("/")
        return self.media in ("*/*", media_type) or (minor == "*" and media_type.startswith(f"{major}/"))


def media_ranges(accept: str) -> list[MediaRange]:
    """Parameters but ``q`` are ignored: nothing that we answer with has any. A ``q`` that is none counts as 0."""
    ranges = []
    for place, part in enumerate(accept.split(",")):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        weight = min(float(quality), 1.0) if QUALITY.fullmatch(quality) else 0.0
        if media:  # Java sends a bare *
            ranges.append(MediaRange("*/*" if media == "*" else media, weight, place))
    return ranges


def media_type_of(form: Form) -> str:
    return "application/json" if form == JSON else form.media_type


def rank(form: Form, ranges: list[MediaRange]) -> tuple[float, int, int]:
    """What says how welcome a form is: the most specific range that covers it, as RFC 9110 12.5.1 has it. Of forms of
    one quality, what is asked for by name goes first, then what is named first."""
    covering = [media for media in ranges if media.covers(media_type_of(form))]
    if not covering:
        return 0.0, 0, 0
    decides = max(covering, key=lambda media: (media.specificity, -media.place))
    return decides.quality, decides.specificity, -decides.place


def read_accept(header: str, asked: ImageFormat | None, default: ImageFormat, n: int = 1) -> Form:
    """The form of the answer; ``asked`` is the body's ``format``. Several pictures are JSON. Raises NotAcceptable."""
    formats = [asked] if asked else list(dict.fromkeys([default, *ImageFormat]))
    forms: list[Form] = [JSON, *formats] if n == 1 else [JSON]
    ranges = media_ranges(header) or media_ranges("*/*")
    best = max(forms, key=lambda form: rank(form, ranges))
    if rank(best, ranges)[0] > 0:
        return best
    offered = ", ".join(map(media_type_of, forms)) + ("" if n == 1 else "; an image type needs n = 1")
    raise NotAcceptable(f"Accept: {header} names nothing this request can be answered with; it can be: {offered}")
