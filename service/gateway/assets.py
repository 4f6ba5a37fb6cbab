"""The files of our own pages: read once from the package, and kept in memory."""

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import NamedTuple, Self

from fastapi import Request, Response

MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'"
    "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    "; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing from elsewhere, no code or style in the page itself, and no text that becomes code or elements."""


class Asset(NamedTuple):
    body: bytes
    media_type: str
    etag: str

    @classmethod
    def of(cls, name: str, body: bytes) -> Self:
        media_type = MEDIA_TYPES[name.rpartition(".")[2]]
        return cls(body, f"{media_type}; charset=utf-8", f'"{hashlib.sha256(body).hexdigest()[:32]}"')

    def answer(self, request: Request) -> Response:
        """304 for a browser that has it. It asks every time, so that a new version of the service shows at once."""
        headers = {"ETag": self.etag, "Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
        if self.etag in request.headers.get("If-None-Match", ""):
            return Response(status_code=304, headers=headers)
        headers["X-Content-Type-Options"] = "nosniff"
        return Response(self.body, headers=headers, media_type=self.media_type)


def read_assets() -> Mapping[str, Asset]:
    """By file name."""
    found = files("service.gateway") / "web"
    return {file.name: Asset.of(file.name, file.read_bytes()) for file in found.iterdir() if file.is_file()}


ASSETS = read_assets()
