"""Every error as RFC 9457 problem+json."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from service.errors import (
    Conflict,
    InferenceFailed,
    InvalidRequest,
    NotAcceptable,
    NotFound,
    PayloadTooLarge,
    QueueFull,
    QuotaExceeded,
    RedisUnavailable,
    RetryLater,
    SetupError,
    StaleEpoch,
    TritonUnavailable,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    VqdError,
)

MEDIA_TYPE = "application/problem+json"
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
    NotFound: (404, "There is no such thing here"),
    NotAcceptable: (406, "The answer cannot have the form that Accept asks for"),
    Conflict: (409, "The request conflicts with the present state"),
    PayloadTooLarge: (413, "The request body is too large"),
    UnsupportedMediaType: (415, "The body must be JSON"),
    QuotaExceeded: (429, "Your limit is reached"),
    Unavailable: (503, "The service cannot take this now"),
    QueueFull: (503, "The queue is full"),
    RedisUnavailable: (503, "The queue's store does not answer"),
    TritonUnavailable: (503, "The inference server does not answer"),
    InferenceFailed: (500, "The model gave no usable answer"),
    StaleEpoch: (409, "Another worker owns this job now"),
}
"""What HTTP makes of an error; a class that is not here has what its parent has."""


@dataclass(frozen=True)
class FieldError:
    """One thing wrong with a request: where, what, and what is allowed there."""

    field: str
    message: str
    allowed: str | None = None

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" + (f" (allowed: {self.allowed})" if self.allowed else "")


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
    errors: list[FieldError] | None = Field(None, description="Each wrong field of a 422.")


def status_and_title(kind: type[VqdError]) -> tuple[int, str]:
    return next(STATUS_AND_TITLE[ancestor] for ancestor in kind.__mro__ if ancestor in STATUS_AND_TITLE)


def urn(kind: type[VqdError]) -> str:
    """The problem type of an error, which clients can tell it by."""
    return f"urn:vqd:problem:{kind.slug}"


def problem(request: Request, status: int, title: str, uri: str, detail: str, **members: Any) -> JSONResponse:
    body = Problem(
        type=uri,
        title=title,
        status=status,
        detail=detail,
        instance=request.url.path,
        request_id=request.state.request_id,
        **members,
    )
    return JSONResponse(body.model_dump(exclude_none=True), status, media_type=MEDIA_TYPE)


def problem_of(request: Request, error: VqdError, **members: Any) -> JSONResponse:
    """The answer to a request that ended in one of our errors."""
    if isinstance(error, InvalidFields):
        members["errors"] = [asdict(e) for e in error.errors]
    elif isinstance(error, InvalidRequest):
        members["errors"] = [{"field": error.field, "message": error.message}]
    kind = type(error)
    response = problem(request, *status_and_title(kind), urn(kind), str(error), **members)
    if isinstance(error, RetryLater):
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


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
    title = HTTPStatus(error.status_code).phrase
    response = problem(request, error.status_code, title, "about:blank", str(error.detail))
    response.headers.update(error.headers or {})
    return response


def document(app: FastAPI) -> dict[str, Any]:
    """FastAPI's OpenAPI document, and the schema of a problem: FastAPI would list it as plain JSON."""
    whole = FastAPI.openapi(app)
    _, problem_schema = models_json_schema([(Problem, "serialization")], ref_template=SCHEMA_REF)
    whole["components"]["schemas"] |= problem_schema["$defs"]
    return whole


def install(app: FastAPI) -> None:
    app.add_exception_handler(VqdError, on_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]  # FastAPI's documented way
