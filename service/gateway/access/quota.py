"""What a key may use of the service, as clients are told: draft-ietf-httpapi-ratelimit-headers-10."""

import time
from collections.abc import Callable

from fastapi import Request
from fastapi.responses import JSONResponse

from service.gateway.access.identity import Identity
from service.gateway.problems import problem_of
from service.queue.account import Account, Allowance, OverQuota
from service.settings import Settings
from service.telemetry.metrics import ByKey

WINDOW_S = 60
REMEMBERED_S = 0.25
REMEMBERED = 10_000
"""Keys at most."""


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


class Refusals:
    """Keys that their limits refused a moment ago. They were told to come back in a second or later, so whoever asks
    again at once is answered without a look at what is asked, nor a trip to Redis: a flood must be cheap to refuse."""

    def __init__(self, counters: ByKey, clock: Callable[[], float] = time.monotonic) -> None:
        self.counters, self.clock = counters, clock
        self.last: dict[str, tuple[OverQuota, float]] = {}

    def check(self, caller: Identity) -> None:
        """Raises the OverQuota of a moment ago."""
        error, until_s = self.last.get(caller.account.owner, (None, 0.0))
        if error and self.clock() < until_s:
            self.counters.refuse(caller.account.owner, caller.name, error.limit)
            raise error

    def note(self, caller: Identity, error: OverQuota) -> None:
        self.counters.refuse(caller.account.owner, caller.name, error.limit)
        if len(self.last) >= REMEMBERED:
            self.last.clear()
        self.last[caller.account.owner] = error, self.clock() + REMEMBERED_S


async def on_over_quota(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OverQuota)
    response = problem_of(request, error)
    response.headers.update(quota_headers(error.account, error.allowance))
    return response
