"""Request bodies: how large they may be, and that they are JSON, or a form with files."""

import json
import math
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import PayloadTooLarge, UnsupportedMediaType
from service.gateway.access.scopes import route_of
from service.gateway.forms import MEDIA_TYPE as FORM
from service.gateway.forms import read_form
from service.gateway.paths import route_path
from service.gateway.pictures.upload import Upload
from service.gateway.problems import FieldError, InvalidFields, problem_of
from service.settings import Settings

JSON = "application/json"
PICTURES = ("image", "mask")
"""Fields that may be large."""


@dataclass
class BodyLimit:
    """ASGI middleware: 413 for a body over ``max_body_bytes``, at once when declared, else when that many were read.

    ``larger``: path → most bytes where pictures may come, each of at most ``max_image_bytes``. Where there is no route
    nothing is read.
    """

    # FastAPI's max_body_size is no substitute: it answers a declared length in plain text, after the route has run.
    app: ASGIApp
    routes: Sequence[BaseRoute]
    max_body_bytes: int
    larger: Mapping[str, int]
    max_image_bytes: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = route_path(scope)
        most = self.larger.get(path, self.max_body_bytes)
        error = too_large(most, f", and a picture in it {self.max_image_bytes}" if path in self.larger else "")
        if int(Headers(scope=scope).get("content-length", "0")) > most and route_of(self.routes, scope):
            await problem_of(Request(scope), error)(scope, receive, send)
            return
        received = 0

        async def bounded_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise error
            return message

        await self.app(scope, bounded_receive, send)


def too_large(most: int, more: str = "") -> PayloadTooLarge:
    return PayloadTooLarge(f"the body may have at most {most} bytes{more}")


def with_pictures(settings: Settings) -> int:
    """The most bytes of a body that holds an image and a mask in base64."""
    return settings.max_body_bytes + 2 * math.ceil(settings.max_image_bytes / 3) * 4


class JsonRoute(APIRoute):
    """A route whose body is a JSON object or a form, which FastAPI then checks against the function's model.

    We parse it, as FastAPI would let lone surrogates pass, take any ``application/*+json``, and answer a bare 400 to
    what is not UTF-8, is nested too deep, or is too large. While pictures are in memory the request has a place in
    ``request.state.place``, for the function to leave.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def parse_and_handle(request: Request) -> Response:
            media_type, gateway = check_media(request), request.app.state.gateway
            most_text = gateway.settings.max_body_bytes
            may_be_large = int(request.headers.get("content-length", most_text + 1)) > most_text
            async with gateway.places.place(may_be_large) as request.state.place:
                if media_type == FORM:
                    value = await read_form(request, most_text)
                else:
                    value = read_json(b"".join([chunk async for chunk in request.stream()]), most_text)
                return await handle(ParsedRequest(request, value))

        return parse_and_handle


class ParsedRequest(Request):
    """A request that knows the value of its body, and has forgotten the bytes. To FastAPI it is JSON in any case."""

    def __init__(self, request: Request, value: dict[str, Any]) -> None:
        headers = [(name, text) for name, text in request.scope["headers"] if name != b"content-type"]
        super().__init__({**request.scope, "headers": [*headers, (b"content-type", JSON.encode())]}, request.receive)
        self.value = value

    async def body(self) -> bytes:
        return b"{}"

    async def json(self) -> dict[str, Any]:
        return self.value


def check_media(request: Request) -> str:
    """Raises UnsupportedMediaType."""
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content_type not in (JSON, FORM):
        raise UnsupportedMediaType(f"Content-Type is {content_type or 'absent'}; send {JSON} or {FORM}")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise UnsupportedMediaType(f"Content-Encoding is {encoding}; send the body as it is")
    return content_type


def read_json(body: bytes, most_text: int) -> dict[str, Any]:
    """Pictures as Upload. Raises InvalidFields, and PayloadTooLarge when it is large without them."""
    if len(body) > most_text and b'"image"' not in body:  # and is not worth parsing
        raise too_large(most_text)
    value = parse_object(body)
    pictures = {name: text for name in PICTURES if isinstance(text := value.get(name), str)}
    if len(body) - sum(map(len, pictures.values())) > most_text:
        raise too_large(most_text)
    return value | {name: Upload(text) for name, text in pictures.items()}


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
