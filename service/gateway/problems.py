"""Every error as RFC 9457 problem+json."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from service.errors import InvalidRequest, RetryLater, VqdError

MEDIA_TYPE = "application/problem+json"


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


def problem(request: Request, status: int, kind: str, title: str, detail: str, **members: Any) -> JSONResponse:
    body = Problem(
        type=kind,
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
    response = problem(request, error.status, f"urn:vqd:problem:{error.slug}", error.title, str(error), **members)
    if isinstance(error, RetryLater):
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def internal_error(request: Request) -> JSONResponse:
    """The answer to a request that met a bug: its request id finds the traceback in the log."""
    detail = "An unexpected error happened. Quote the request id to the operator."
    return problem(request, VqdError.status, f"urn:vqd:problem:{VqdError.slug}", VqdError.title, detail)


async def on_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, VqdError)
    return problem_of(request, error)


async def on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses by itself: unknown routes, wrong methods."""
    assert isinstance(error, HTTPException)
    title = HTTPStatus(error.status_code).phrase
    response = problem(request, error.status_code, "about:blank", title, str(error.detail))
    response.headers.update(error.headers or {})
    return response


async def on_validation_error(request: Request, error: Exception) -> JSONResponse:
    """A path parameter or header of the wrong type."""
    assert isinstance(error, RequestValidationError)
    return problem_of(request, InvalidFields([FieldError(str(e["loc"][-1]), e["msg"]) for e in error.errors()]))


def install(app: FastAPI) -> None:
    app.add_exception_handler(VqdError, on_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_validation_error)
