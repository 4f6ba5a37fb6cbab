"""What every answer tells browsers: not to guess, not to frame, not to load, not to keep."""

from dataclasses import dataclass
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.gateway.paths import route_path

NOTHING: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""For JSON and pictures, should one ever be shown as a page."""
DOCS: Final = f"{NOTHING}; connect-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:"
"""Nothing comes from elsewhere. Swagger UI has small pictures in its style, and shows those that it was answered."""
PLAYGROUND: Final = f"{DOCS}; require-trusted-types-for 'script'; trusted-types 'none'"
"""Neither may any text become code or elements there."""
POLICIES: Final = {"/": PLAYGROUND, "/docs": DOCS}
"""Content-Security-Policy of each page."""
ALWAYS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": NOTHING,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""A route may set another Cache-Control, and does for a picture."""


@dataclass
class SecurityHeaders:
    """ASGI middleware: adds what an answer does not say itself. ``embeddable``: other sites may show our pictures."""

    app: ASGIApp
    embeddable: bool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        added = ALWAYS | {"Content-Security-Policy": POLICIES.get(route_path(scope), NOTHING)}
        if self.embeddable:
            added["Cross-Origin-Resource-Policy"] = "cross-origin"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in added.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers)
