"""Whose job it is, and what they may use of the service."""

from dataclasses import dataclass


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
