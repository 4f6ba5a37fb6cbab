"""Make the picture of a file again, and say whether it is the same: what ``vqd replay`` does."""

import hashlib
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

from service.client import Client
from service.errors import SetupError
from service.provenance.origin import Origin

FACTS = ("model_sha256", "version", "dtype", "backend")
"""What decides about the tokens beside the request."""
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
    """The pictures that a picture was made from: they are not in its file."""

    image: Path | None = None
    mask: Path | None = None

    def fields(self, origin: Origin) -> dict[str, str]:
        """As a request takes them. Raises SetupError when it is another picture, or one is missing."""
        image = read(self.image)
        wanted = origin.image_sha256
        if wanted is not None and image is None:
            raise SetupError(f"it was made from a picture with the SHA-256 {wanted}: give that with --image")
        if wanted is not None and image is not None and hashlib.sha256(image).hexdigest() != wanted:
            raise SetupError(f"{self.image} is not the picture that it was made from, whose SHA-256 is {wanted}")
        files = {"image": image, "mask": read(self.mask)}
        return {name: b64encode(data).decode() for name, data in files.items() if data is not None}


def read(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}") from None


def differences(origin: Origin, made: dict[str, object]) -> tuple[str, ...]:
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
    """Raises what the service does."""
    job_id = client.submit({**origin.request, **given.fields(origin)})
    for _ in client.events(job_id):
        pass
    answer = client.finished(job_id)
    return Replayed(origin, answer["images"][0]["tokens_sha256"], differences(origin, answer))
