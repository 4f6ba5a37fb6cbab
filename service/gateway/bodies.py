"""Request bodies: how large they may be, and that they are JSON."""

import json
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
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
            check_media(request)
            parsed = ParsedRequest(request.scope, request.receive)
            parsed.value = parse_object(await parsed.body())
            return await handle(parsed)

        return parse_and_handle


class ParsedRequest(Request):
    """A request that knows the value of its body."""

    value: dict[str, Any]

    async def json(self) -> dict[str, Any]:
        return self.value


def check_media(request: Request) -> None:
    """Raises UnsupportedMediaType."""
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content_type != "application/json":
        raise UnsupportedMediaType(f"Content-Type is {content_type or 'absent'}; send application/json")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise UnsupportedMediaType(f"Content-Encoding is {encoding}; send the body as it is")


def parse_object(body: bytes) -> dict[str, Any]:
    """Raises InvalidFields."""
    body = body.removeprefix(BOM_UTF8)  # RFC 8259 8.1 lets us, and PowerShell writes one
    try:
        value = from_json(body)
    except ValueError as error:
        raise not_an_object(f"Invalid JSON: {error}") from None
    if not isinstance(value, dict):
        raise not_an_object("Input should be an object")
    # Only the pairs matter here: a number of 5,000 digits is not to be read once more.
    json.loads(body, object_pairs_hook=check_unique, parse_int=len, parse_float=len, parse_constant=len)
    return value


def check_unique(pairs: Sequence[tuple[str, object]]) -> None:
    """from_json keeps the last of several. Raises InvalidFields."""
    counts = Counter(key for key, _ in pairs)
    if len(counts) < len(pairs):
        twice = [key for key, count in counts.items() if count > 1]
        raise InvalidFields([FieldError(key, "is given more than once", "each field once") for key in twice])


def not_an_object(message: str) -> InvalidFields:
    return InvalidFields([FieldError("body", message, "a JSON object in UTF-8, without lone surrogates")])
