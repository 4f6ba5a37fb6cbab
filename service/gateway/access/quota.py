"""What a key may use of the service, as clients are told: draft-ietf-httpapi-ratelimit-headers-10."""

from fastapi import Request
from fastapi.responses import JSONResponse

from service.gateway.problems import problem_of
from service.queue.account import Account, Allowance, OverQuota
from service.settings import Settings

WINDOW_S = 60


def usual(settings: Settings) -> Account:
    """The limits of a key that has none of its own."""
    return Account(
        cost_per_minute=settings.key_cost_per_minute, jobs=settings.key_jobs, result_bytes=settings.key_result_bytes
    )


def quota_headers(account: Account, allowance: Allowance) -> dict[str, str]:
    """``RateLimit-Policy`` and ``RateLimit``, for the limits that the account has."""
    policies, limits = [], []
    if account.cost_per_minute:
        policies.append(f'"passes";q={account.cost_per_minute};w={WINDOW_S}')
        limits.append(f'"passes";r={allowance.left};t={round(allowance.whole_in_s)}')
    if account.jobs:
        policies.append(f'"jobs";q={account.jobs};qu="concurrent-requests"')
    headers = {"RateLimit-Policy": policies, "RateLimit": limits}
    return {name: ", ".join(values) for name, values in headers.items() if values}


async def on_over_quota(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OverQuota)
    response = problem_of(request, error)
    response.headers.update(quota_headers(error.account, error.allowance))
    return response
