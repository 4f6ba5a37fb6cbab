"""Errors as OpenAI's clients read them, on the paths that only they ask."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.types import Scope

from service.gateway.paths import route_path

OURS = ("/v1/models", "/v1/status")
"""Below /v1 they are all OpenAI's but these, which our own clients read."""
SHOULD_RETRY = "X-Should-Retry"
"""Their clients ask again on 409, 429 and each 5xx, unless this says that it is pointless."""
TYPES = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}


class ErrorFacts(BaseModel):
    message: str
    type: str = Field(examples=["invalid_request_error"])
    param: str | None = Field(description="The first wrong field.")
    code: str | None = Field(description="The last part of a problem's type elsewhere.", examples=["queue-full"])
    job: str | None = Field(None, description="The job that this is about.")


class ErrorAnswer(BaseModel):
    """What OpenAI's clients make their exceptions of."""

    error: ErrorFacts


RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {"model": ErrorAnswer, "description": "An error in the form that OpenAI's clients read."}
}
"""For the OpenAPI document."""


def speaks(scope: Scope) -> bool:
    """Whether a request is of OpenAI's API, and its errors are in OpenAI's form: the one place that decides it."""
    path = route_path(scope)
    return path.startswith("/v1/") and path not in OURS


def type_of(status: int) -> str:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "server_error"
    return TYPES.get(HTTPStatus(status), "invalid_request_error")


def error_answer(status: int, uri: str, detail: str, members: Mapping[str, Any]) -> JSONResponse:
    """``uri``, ``members``: of the problem that it would be elsewhere. A retry is pointless unless somebody says so."""
    wrong = members.get("errors", [])
    facts = ErrorFacts(
        message=detail,
        type=type_of(status),
        param=wrong[0]["field"] if wrong else None,
        code=uri.rpartition(":")[2] if uri.startswith("urn:") else None,
        job=members.get("job"),
    )
    body = ErrorAnswer(error=facts).model_dump()
    if facts.job is None:
        del body["error"]["job"]
    return JSONResponse(body, status, {SHOULD_RETRY: "false"})
