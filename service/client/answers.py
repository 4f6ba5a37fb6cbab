"""What the service answers: JSON, or an error as the class that the service raised."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import httpx
from httpx import codes

from service.client.address import API_KEY, shown
from service.errors import (
    Conflict,
    InferenceFailed,
    InvalidRequest,
    QuotaExceeded,
    RetryLater,
    Unauthorized,
    Unavailable,
    VqdError,
    with_allowed,
)
from service.errors import by_slug as class_of
from service.messages import Status

Answer: TypeAlias = dict[str, Any]
SHOWN = 200
"""Characters of an answer that is none of ours."""
OF_PROXIES: Mapping[int, type[RetryLater]] = {
    codes.TOO_MANY_REQUESTS: QuotaExceeded,
    codes.BAD_GATEWAY: Unavailable,
    codes.SERVICE_UNAVAILABLE: Unavailable,
    codes.GATEWAY_TIMEOUT: Unavailable,
}
"""What others than the service answer for a while."""


def error_of(response: httpx.Response) -> VqdError:
    """The error that a problem describes."""
    try:
        body = response.json()
        kind, detail = named(str(body["type"])) or of_proxies(response), str(body["detail"])
        if issubclass(kind, InvalidRequest):
            first = body["errors"][0]
            return kind(first["field"], with_allowed(first["message"], first.get("allowed")))
        if issubclass(kind, RetryLater):
            return kind(detail, retry_after_s(response))
        if kind is Unauthorized and "Authorization" not in response.request.headers:
            return kind(f"{detail}; no key was given: {API_KEY} sets one")
    except (ValueError, LookupError, TypeError, AttributeError):
        return foreign(response)
    return kind(detail)


def foreign(response: httpx.Response) -> VqdError:
    """Of a proxy, or of another version."""
    kind = of_proxies(response)
    where = f" and leads to {response.headers['Location']}" if response.has_redirect_location else ""
    told = f"{shown(str(response.url))} answered {response.status_code}{where}: {response.text[:SHOWN]}"
    return kind(told, retry_after_s(response)) if issubclass(kind, RetryLater) else kind(told)


def of_proxies(response: httpx.Response) -> type[VqdError]:
    """Of an error that is not one of this version's."""
    return OF_PROXIES.get(response.status_code, VqdError)


def retry_after_s(response: httpx.Response) -> int:
    """A second where nothing is said, or a date."""
    told = response.headers.get("Retry-After", "")
    return int(told) if told.isdecimal() and told.isascii() else 1


def named(problem_type: str) -> type[VqdError] | None:
    """The class of a problem's type; None when this version has none."""
    return class_of(problem_type.rpartition(":")[2])


def failure_of(answer: Mapping[str, Any]) -> VqdError:
    """Why a job has no pictures, as the class that its description names."""
    if answer["status"] == Status.CANCELLED:
        return Conflict(f"job {answer['id']} was cancelled")
    reason = answer.get("error") or "no reason given"
    kind = named(answer.get("error_type") or "") or InferenceFailed
    if issubclass(kind, InvalidRequest):
        field, _, message = reason.partition(": ")
        return kind(field, message)
    return kind(f"job {answer['id']} {answer['status']}: {reason}")


def checked(response: httpx.Response) -> httpx.Response:
    """A response that was read. Raises what it says went wrong."""
    if not response.is_success:
        raise error_of(response)
    return response


def json_of(response: httpx.Response, *names: str) -> Answer:
    """Raises VqdError for what is no JSON object with these names, such as the page of a proxy that wants a login."""
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not answer.keys() >= {*names}:
        raise foreign(response)
    return answer
