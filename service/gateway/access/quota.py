"""What a key may use of the service: its own limits, or those of the settings; and what clients are told of them.

The headers are those of draft-ietf-httpapi-ratelimit-headers-10.
"""

from dataclasses import replace

from service.gateway.access.identity import Identity
from service.queue.account import Account, Allowance
from service.settings import Settings

WINDOW_S = 60


def account_of(caller: Identity, settings: Settings) -> Account:
    """The caller's account; where nobody is asked for a key, there are no limits."""
    own = caller.account
    if not own.owner:
        return own
    return replace(
        own,
        cost_per_minute=own.cost_per_minute or settings.key_cost_per_minute,
        jobs=own.jobs or settings.key_jobs,
        result_bytes=own.result_bytes or settings.key_result_bytes,
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
