"""The files of our pages: all of them come from us, so that the pages work without internet, and tell nobody of it."""

import hashlib
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import fastapi_offline

from service.errors import NotFound

WEB = Path(__file__).parent / "web"
SWAGGER = Path(fastapi_offline.__file__).parent / "static"
"""Swagger UI, as that package carries it. It is not called: its pages have scripts in them."""
TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}
FOR_EVER = "public, max-age=31536000, immutable"
"""For an address that has the hash of the file in it."""


@dataclass(frozen=True)
class Asset:
    path: Path

    @cached_property
    def data(self) -> bytes:
        return self.path.read_bytes()

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def media_type(self) -> str:
        return TYPES[self.path.suffix]

    @property
    def address(self) -> str:
        """Beside the pages, whatever prefix a proxy puts in front of them."""
        return f"assets/{self.sha256[:16]}/{self.path.name}"

    def kept(self, digest: str) -> str:
        """Cache-Control at an address with ``digest``: one of another version must not be kept under it."""
        return FOR_EVER if self.sha256.startswith(digest) else "no-cache"


ASSETS = {
    path.name: Asset(path) for path in (SWAGGER / "swagger-ui.css", SWAGGER / "swagger-ui-bundle.js", WEB / "docs.js")
}


def asset(name: str) -> Asset:
    """Raises NotFound."""
    if name not in ASSETS:
        raise NotFound("there is no such file")
    return ASSETS[name]


@cache
def page(name: str) -> str:
    """A page of ours, with the address of each file where it names one."""
    return re.sub(r"\{(.+?)\}", lambda named: ASSETS[named[1]].address, (WEB / name).read_text())
