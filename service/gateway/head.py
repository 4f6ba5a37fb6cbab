"""HEAD wherever there is GET (RFC 9110 9.1)."""

from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass
class HeadAsGet:
    """ASGI middleware: answers HEAD with the head of what GET would answer, and waits for nothing behind it."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})  # the last: a stream ends here

        as_get = dict(scope, method="GET")
        try:
            await self.app(as_get, receive, send_head)
        finally:
            scope["route"] = as_get.get("route")
