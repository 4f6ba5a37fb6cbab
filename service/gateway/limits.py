"""Bounds on what a client may send."""

from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import PayloadTooLarge
from service.gateway.problems import problem_of


@dataclass
class BodyLimit:
    """ASGI middleware: 413 for a body over ``max_body_bytes``, at once when declared, else when that many were read."""

    app: ASGIApp
    max_body_bytes: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        error = PayloadTooLarge(f"the body may have at most {self.max_body_bytes} bytes")
        if int(Headers(scope=scope).get("content-length", "0")) > self.max_body_bytes:
            await problem_of(Request(scope), error)(scope, receive, send)
            return
        received = 0

        async def bounded_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_body_bytes:
                raise error
            return message

        await self.app(scope, bounded_receive, send)
