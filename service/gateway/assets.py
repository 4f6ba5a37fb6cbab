"""The files of our pages: all of them come from us, so that the pages work without internet, and tell nobody of it."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import fastapi_offline

from service.errors import NotFound

WEB = Path(__file__).parent / "web"
SWAGGER = Path(fastapi_offline.__file__).parent / "static"
"""Swagger UI, as that package carries it. It is not called: its pages have scripts in them."""
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
FOR_EVER = "public, max-age=31536000, immutable"
"""For an address that has the hash of the files in it."""


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


ASSETS = {
    path.name: Asset(path)
    for path in (SWAGGER / "swagger-ui.css", SWAGGER / "swagger-ui-bundle.js", *sorted(WEB.iterdir()))
    if path.suffix in TYPES
}


def version_of(assets: Mapping[str, Asset]) -> str:
    """Of all files together, for a module of the playground names the others as its neighbours."""
    hashes = "".join(f"{name} {one.sha256}\n" for name, one in assets.items())
    return hashlib.sha256(hashes.encode()).hexdigest()[:16]


@cache
def version() -> str:
    return version_of(ASSETS)


def address(name: str) -> str:
    """Beside the pages, whatever prefix a proxy puts in front of them."""
    return f"assets/{version()}/{asset(name).path.name}"


def kept(digest: str) -> str:
    """Cache-Control at an address with ``digest``: a file of another version must not be kept under it."""
    return FOR_EVER if digest == version() else "no-cache"


def asset(name: str) -> Asset:
    """Raises NotFound."""
    if name not in ASSETS:
        raise NotFound("there is no such file")
    return ASSETS[name]


@cache
def page(name: str) -> str:
    """A page of ours, with the address of each file where it names one."""
    return re.sub(r"\{(.+?)\}", lambda named: address(named[1]), (WEB / name).read_text())
