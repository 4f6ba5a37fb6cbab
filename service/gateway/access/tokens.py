"""What an API key looks like: ``vqd_`` + a public id + ``_`` + a secret with a checksum, such as

``vqd_`` ``aB3dE6gH`` ``_`` ``32 characters of secret`` ``6 of checksum``

The prefix and the checksum let scanners of repositories and logs tell a key from chance, without asking us:
``vqd_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}``, and then the CRC32 of all before the last six characters, in base 62.
"""

import hashlib
import re
import secrets
import string
import zlib
from dataclasses import dataclass, field

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_CHARS, SECRET_CHARS, CHECK_CHARS = 8, 32, 6
"""The secret has 190 bits; 62⁶ is more than a CRC32 can be."""
OURS = re.compile(rf"vqd_([0-9A-Za-z]{{{ID_CHARS}}})_[0-9A-Za-z]{{{SECRET_CHARS + CHECK_CHARS}}}")


@dataclass(frozen=True)
class Minted:
    """A new token, to be shown once: only its digest is kept."""

    id: str
    token: str = field(repr=False)

    @property
    def digest(self) -> str:
        return digest(self.token)


def mint(key_id: str = "") -> Minted:
    """A token for this key, or for a new one."""
    key_id = key_id or drawn(ID_CHARS)
    body = f"vqd_{key_id}_{drawn(SECRET_CHARS)}"
    return Minted(key_id, body + checksum(body))


def drawn(count: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(count))


def checksum(body: str) -> str:
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(CHECK_CHARS):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits


def misspelt(token: str) -> bool:
    """Whether it means to be one of ours and cannot be. A key of a file may be any other text."""
    if not token.startswith("vqd_"):
        return False
    return not OURS.fullmatch(token) or checksum(token[:-CHECK_CHARS]) != token[-CHECK_CHARS:]


def digest(token: str) -> str:
    """SHA-256 in hex: how a token is looked up, and all that is kept of it."""
    return hashlib.sha256(token.encode()).hexdigest()
