"""Request bodies: how large they may be, and that they are JSON."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import PayloadTooLarge, UnsupportedMediaType
from service.gateway.problems import FieldError, InvalidFields, problem_of


@dataclass
class BodyLimit:
    """ASGI middleware: 413 for a body over ``max_body_bytes``, at once when declared, else when that many were read."""

    # FastAPI's max_body_size is no substitute: it answers a declared length in plain text, after the route has run.
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


class JsonRoute(APIRoute):
    """A route whose body is a JSON object, which FastAPI then checks against the model that the function takes.

    We parse it, as FastAPI would let lone surrogates pass, take any ``application/*+json``, and answer a bare 400 to
    what is not UTF-8, is nested too deep, or is too large.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def parse_and_handle(request: Request) -> Response:
            check_content_type(request)
            parsed = ParsedRequest(request.scope, request.receive)
            parsed.value = parse_object(await parsed.body())
            return await handle(parsed)

        return parse_and_handle


class ParsedRequest(Request):
    """A request that knows the value of its body."""

    value: dict[str, Any]

    async def json(self) -> dict[str, Any]:
        return self.value


def check_content_type(request: Request) -> None:
    """Raises UnsupportedMediaType."""
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content_type != "application/json":
        raise UnsupportedMediaType(f"Content-Type is {content_type or 'absent'}; send application/json")


def parse_object(body: bytes) -> dict[str, Any]:
    """Raises InvalidFields."""
    try:
        value = from_json(body)
    except ValueError as error:
        raise not_an_object(f"Invalid JSON: {error}") from None
    if not isinstance(value, dict):
        raise not_an_object("Input should be an object")
    return value


def not_an_object(message: str) -> InvalidFields:
    return InvalidFields([FieldError("body", message, "a JSON object in UTF-8, without lone surrogates")])
