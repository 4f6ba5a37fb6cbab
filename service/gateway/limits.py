"""Bounds on what a client may send."""

from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import PayloadTooLarge


@dataclass
class BodyLimit:
    """ASGI middleware: reading a body over ``max_body_bytes`` raises PayloadTooLarge, declared or chunked alike."""

    app: ASGIApp
    max_body_bytes: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        received = 0

        async def bounded_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            # Only body messages raise: the wait for a client's hang-up goes through here too.
            if message["type"] == "http.request" and max(received, int(declared)) > self.max_body_bytes:
                raise PayloadTooLarge(f"the body may have at most {self.max_body_bytes} bytes")
            return message

        await self.app(scope, bounded_receive, send)
