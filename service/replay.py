"""Make the picture of a file again, and say whether it is the same: what ``vqd replay`` does."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.client.blocking.client import Client
from service.errors import SetupError
from service.provenance.origin import Origin

FACTS = ("model_sha256", "version", "dtype", "backend")
"""What decides about the tokens beside the request."""
NEVER_ASKED = {"image", "mask", "webhook_url", "timeout_s", "self"}
"""A file is somebody's word: it must not have us send files of this machine, or the service call somewhere."""
SHOWN = 16
"""Characters of a hash."""


@dataclass(frozen=True)
class Replayed:
    """``tokens_sha256``: of the file, and of the picture that was made now. ``differences``: of what made the two."""

    origin: Origin
    tokens_sha256: str
    differences: tuple[str, ...]

    @property
    def equal(self) -> bool:
        return self.tokens_sha256 == self.origin.tokens_sha256

    def __str__(self) -> str:
        if self.equal:
            return "equal"
        hashes = f"tokens {self.tokens_sha256[:SHOWN]} in place of {self.origin.tokens_sha256[:SHOWN]}"
        return "; ".join([f"differs: {hashes}", *self.differences])


@dataclass(frozen=True)
class Given:
    """The pictures that a picture was made from: their hashes are in its file, and they are not."""

    image: Path | None = None
    mask: Path | None = None

    def fields(self, origin: Origin) -> dict[str, bytes]:
        """As a request takes them. Raises SetupError when it is another picture, or one is missing."""
        files = {name: read(path, origin.request.get(f"{name}_sha256"), f"--{name}") for name, path in self.named}
        return {name: data for name, data in files.items() if data is not None}

    @property
    def named(self) -> tuple[tuple[str, Path | None], ...]:
        return ("image", self.image), ("mask", self.mask)


def read(path: Path | None, wanted: object, option: str) -> bytes | None:
    """The file's bytes, if it is that with the SHA-256 ``wanted``; None where none is. Raises SetupError."""
    if wanted is None:
        return None
    if path is None:
        raise SetupError(f"it was made from a file with the SHA-256 {wanted}: give that with {option}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}") from None
    if hashlib.sha256(data).hexdigest() != wanted:
        raise SetupError(f"{path} is not the file that it was made from, whose SHA-256 is {wanted}")
    return data


def differences(origin: Origin, made: Mapping[str, Any]) -> tuple[str, ...]:
    """What made the file and what makes it now, where both are known and differ."""
    then = origin.model_dump()
    return tuple(
        f"{fact} {str(made[fact])[:SHOWN]} in place of {then[fact][:SHOWN]}"
        for fact in FACTS
        if then[fact] and made.get(fact) and then[fact] != made[fact]
    )


def expect(client: Client, origin: Origin) -> tuple[str, ...]:
    """How the service's model differs from the one that made the file; nothing when it does not serve it."""
    cards = client.models()
    served = [card for card in cards if card["id"] == origin.request.get("model")]
    return differences(origin, {**served[0], "model_sha256": served[0]["sha256"]}) if served else ()


def replay(client: Client, origin: Origin, given: Given) -> Replayed:
    """Raises what the service does, and SetupError for a file that asks for what none of ours does."""
    if odd := sorted(NEVER_ASKED & origin.request.keys()):
        raise SetupError(f"it asks for {', '.join(odd)}, which no file of vqd's does")
    fields: dict[str, Any] = {**origin.request, **given.fields(origin)}
    made = client.generate(**fields)
    return Replayed(origin, made.images[0].tokens_sha256, differences(origin, made.answer))
