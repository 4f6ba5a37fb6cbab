"""Whose job it is, and what they may use of the service."""

from dataclasses import dataclass

from service.errors import QuotaExceeded


@dataclass(frozen=True)
class Account:
    """``owner`` is the id of an API key; empty: nobody asked who it is. A limit of 0 is none.

    ``weight``: its share of the service where several wait, beside the others'. ``cost_per_minute``: passes of the
    network that its pictures may take. ``jobs``: queued and running at once. ``result_bytes``: of its kept pictures.
    """

    owner: str = ""
    weight: float = 1.0
    cost_per_minute: int = 0
    jobs: int = 0
    result_bytes: int = 0


ANYBODY = Account()


@dataclass(frozen=True)
class Allowance:
    """What is left of an account's cost: ``left`` passes now, all of them in ``whole_in_s``."""

    left: int
    whole_in_s: float

    @classmethod
    def of(cls, account: Account, debt_ms: int) -> "Allowance":
        """``debt_ms``: when all that was spent has come back; beyond a minute there is nothing left."""
        left = account.cost_per_minute * max(0.0, 1 - debt_ms / 60_000)
        return cls(int(left), debt_ms / 1000)


class OverQuota(QuotaExceeded):
    """A job that its owner's limits refuse; ``limit`` is the field of the account, or ``crowd``."""

    def __init__(self, message: str, retry_after_s: int, limit: str, account: Account, allowance: Allowance) -> None:
        super().__init__(message, retry_after_s)
        self.limit, self.account, self.allowance = limit, account, allowance

    def again(self) -> "OverQuota":
        """The same that was never raised: one that was holds the frames of the request that it ended."""
        return OverQuota(str(self), self.retry_after_s, self.limit, self.account, self.allowance)
