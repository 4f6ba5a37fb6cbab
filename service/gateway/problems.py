"""Every error as RFC 9457 problem+json, but where OpenAI's clients ask."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeAlias

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema
from starlette.exceptions import HTTPException

from service.errors import (
    Conflict,
    DeadlinePassed,
    Forbidden,
    GivenUp,
    InferenceFailed,
    InvalidRequest,
    NotAcceptable,
    NotDurable,
    NotFound,
    OtherVersion,
    PayloadTooLarge,
    QueueFull,
    QuotaExceeded,
    RedisUnavailable,
    RetryLater,
    SetupError,
    StaleEpoch,
    StillRunning,
    StorageUnavailable,
    TritonUnavailable,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    VqdError,
    with_allowed,
)
from service.gateway.addresses import without_addresses
from service.gateway.openai.errors import SHOULD_RETRY, error_answer, speaks
from service.gateway.paths import route_path

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
Absent: TypeAlias = SkipJsonSchema[None]
"""Of a header or a field of an answer that is there or not, but never null: generated clients would offer that."""
SCHEMA_REF = "#/components/schemas/{model}"
RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "An RFC 9457 problem.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": SCHEMA_REF.format(model="Problem")}}},
    }
}
"""For the OpenAPI document: what any route may answer."""

STATUS_AND_TITLE: dict[type[VqdError], tuple[int, str]] = {
    VqdError: (500, "Internal error"),
    SetupError: (500, "The service is not set up correctly"),
    InvalidRequest: (422, "The request is not valid"),
    Unauthorized: (401, "A valid API key is needed"),
    Forbidden: (403, "The API key does not allow this"),
    NotFound: (404, "There is no such thing here"),
    NotAcceptable: (406, "The answer cannot have the form that Accept asks for"),
    StillRunning: (504, "The pictures are not finished yet"),
    Conflict: (409, "The request conflicts with the present state"),
    PayloadTooLarge: (413, "The request body is too large"),
    UnsupportedMediaType: (415, "The body must be JSON or a form"),
    QuotaExceeded: (429, "Your limit is reached"),
    Unavailable: (503, "The service cannot take this now"),
    OtherVersion: (503, "Another version of the service is needed to read this"),
    QueueFull: (503, "The queue is full"),
    NotDurable: (503, "The job is not safe yet"),
    RedisUnavailable: (503, "The queue's store does not answer"),
    StorageUnavailable: (503, "The storage of the pictures does not answer"),
    TritonUnavailable: (503, "The inference server does not answer"),
    InferenceFailed: (500, "The model gave no usable answer"),
    GivenUp: (500, "Every worker that ran the job was lost"),
    StaleEpoch: (409, "Another worker owns this job now"),
    DeadlinePassed: (409, "The job was not finished by its deadline"),
}
"""What HTTP makes of an error; a class that is not here has what its parent has."""


DETAIL_CHARS = 400
FIELD_CHARS = 40
PATH_CHARS = 200
ERRORS_BYTES = 2000
"""Bounds of what a problem says, so that no question makes it large."""


@dataclass(frozen=True)
class FieldError:
    """One thing wrong with a request: where, what, and what is allowed there."""

    field: str
    message: str
    allowed: str | Absent = None

    def __str__(self) -> str:
        return f"{self.field}: {with_allowed(self.message, self.allowed)}"


class InvalidFields(InvalidRequest):
    """All that is wrong with a request at once."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__(errors[0].field, errors[0].message)
        self.errors = tuple(errors)

    def __str__(self) -> str:
        return "; ".join(map(str, self.errors))


class Problem(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:vqd:problem:invalid-request"])
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    errors: list[FieldError] | Absent = Field(None, description="Each wrong field of a 422.")
    job: str | Absent = Field(None, description="The job that this is about.")
    reasons: list[str] | Absent = Field(None, description="Why no request would be served now.")


def status_and_title(kind: type[VqdError]) -> tuple[int, str]:
    return next(STATUS_AND_TITLE[ancestor] for ancestor in kind.__mro__ if ancestor in STATUS_AND_TITLE)


def urn(kind: type[VqdError]) -> str:
    """The problem type of an error, which clients can tell it by."""
    return f"urn:vqd:problem:{kind.slug}"


def shorten(text: str, most: int) -> str:
    """In at most ``most`` characters, all of them printable."""
    printable = "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text[:most])
    return printable if len(text) <= most else printable[:-1] + "…"


def for_clients(text: str) -> str:
    """A reason of ours as clients may see it."""
    return shorten(without_addresses(text), DETAIL_CHARS)


def problem(request: Request, status: int, title: str, uri: str, detail: str, **members: Any) -> JSONResponse:
    """In OpenAI's form where that is spoken."""
    if speaks(request.scope):
        return error_answer(status, uri, shorten(detail, DETAIL_CHARS), members)
    body = Problem(
        type=uri,
        title=title,
        status=status,
        detail=shorten(detail, DETAIL_CHARS),
        instance=shorten(request.url.path, PATH_CHARS),
        request_id=request.state.request_id,
        **members,
    )
    return JSONResponse(body.model_dump(exclude_none=True), status, media_type=MEDIA_TYPE)


def problem_of(request: Request, error: VqdError, **members: Any) -> JSONResponse:
    """The answer to a request that ended in one of our errors."""
    kind, detail = type(error), str(error)
    status, title = status_and_title(kind)
    if isinstance(error, InvalidRequest):
        members["errors"] = list(wrong_fields(error))
    elif status >= HTTPStatus.INTERNAL_SERVER_ERROR and without_addresses(detail) != detail:
        log.warning("what the client is not told: %s", detail)
        detail = without_addresses(detail)
    response = problem(request, status, title, urn(kind), detail, **members)
    if isinstance(error, RetryLater):
        response.headers["Retry-After"] = str(error.retry_after_s)
        if SHOULD_RETRY in response.headers:
            response.headers[SHOULD_RETRY] = "true"
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, UnsupportedMediaType):
        response.headers.update({"Accept": "application/json, multipart/form-data", "Accept-Encoding": "identity"})
    return response


def wrong_fields(error: InvalidRequest) -> Iterator[dict[str, str]]:
    """As many of them as there is room for, but one at least."""
    errors = error.errors if isinstance(error, InvalidFields) else (FieldError(error.field, error.message),)
    room = ERRORS_BYTES
    for one in errors:
        told = {"field": shorten(one.field, FIELD_CHARS), "message": shorten(one.message, DETAIL_CHARS)}
        told |= {"allowed": one.allowed} if one.allowed else {}
        room -= len(json.dumps(told))
        if room < 0 and one is not errors[0]:
            return
        yield told


def internal_error(request: Request) -> JSONResponse:
    """The answer to a request that met a bug: its request id finds the traceback in the log."""
    detail = "An unexpected error happened. Quote the request id to the operator."
    return problem(request, *status_and_title(VqdError), urn(VqdError), detail)


async def on_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, VqdError)
    return problem_of(request, error)


async def on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses by itself: unknown routes, wrong methods."""
    assert isinstance(error, HTTPException)
    detail, headers, path = str(error.detail), dict(error.headers or {}), request.url.path
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = f"there is nothing at {path}; GET {request.scope.get('root_path', '')}/docs shows what there is"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (methods := methods_of(request)):
        headers["Allow"] = ", ".join(sorted(methods))  # Starlette names those of the first route only
        detail = f"{path} takes {headers['Allow']}, not {request.method}"
    response = problem(request, error.status_code, HTTPStatus(error.status_code).phrase, "about:blank", detail)
    response.headers.update(headers)
    return response


def methods_of(request: Request) -> set[str]:
    """All that a path of ours may be asked with."""
    routes = [route for route in request.app.state.routes if route.path_regex.match(route_path(request.scope))]
    methods = {method for route in routes for method in route.methods}
    return methods | {"HEAD"} if "GET" in methods else methods


def install(app: FastAPI) -> None:
    app.add_exception_handler(VqdError, on_error)
    app.add_exception_handler(HTTPException, on_http_exception)
