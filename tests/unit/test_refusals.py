"""Keys that were refused a moment ago are refused again, for a moment, and nothing of their requests is kept."""

import pytest
from prometheus_client import CollectorRegistry

from service.gateway.access.identity import Identity
from service.gateway.access.quota import REMEMBERED_S, Refusals
from service.queue.account import Account, Allowance, OverQuota
from service.telemetry.metrics import GatewayMetrics

ACCOUNT = Account("k1", jobs=1)
ERROR = OverQuota("enough", 5, "jobs", ACCOUNT, Allowance(3, 1.5))


def test_a_refusal_is_repeated_for_a_moment_and_keeps_no_request() -> None:
    now_s = 100.0
    refusals = Refusals(GatewayMetrics(CollectorRegistry()).by_key, lambda: now_s)
    caller, other = (Identity(Account(owner, jobs=1), owner, frozenset()) for owner in ("k1", "k2"))
    refusals.check(caller)
    try:
        raise ERROR
    except OverQuota as error:
        refusals.note(caller, error)
    for _ in range(3):
        with pytest.raises(OverQuota, match="enough") as again:
            refusals.check(caller)
        told = again.value
        assert (told.retry_after_s, told.limit, told.account) == (5, "jobs", ACCOUNT)
        assert told.allowance == ERROR.allowance
    (kept, _) = refusals.last["k1"]
    assert kept.__traceback__ is None
    refusals.check(other)
    now_s += REMEMBERED_S
    refusals.check(caller)
