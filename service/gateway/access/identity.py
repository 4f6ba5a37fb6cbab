"""Who asks."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from fastapi import Depends, Request

from service.queue.account import ANYBODY, Account


class Scope(StrEnum):
    """What a key may do. ``admin`` may do everything, with everybody's jobs; ``generate`` may read, too."""

    GENERATE = "generate"
    READ = "read"
    ADMIN = "admin"
    METRICS = "metrics"

    def within(self, granted: frozenset["Scope"]) -> bool:
        """Whether these scopes allow it."""
        return bool(granted & {self, Scope.ADMIN}) or (self is Scope.READ and Scope.GENERATE in granted)


@dataclass(frozen=True)
class Identity:
    """``name``: what people call the key. The account's owner is its id."""

    account: Account
    name: str
    scopes: frozenset[Scope]

    def owns(self, owner: str) -> bool:
        """Whether a job of ``owner`` is theirs to see and to end."""
        return Scope.ADMIN in self.scopes or (owner != "" and self.account.owner == owner)


EVERYBODY = Identity(ANYBODY, "", frozenset(Scope))
"""Where no key is asked for."""
NOBODY = Identity(ANYBODY, "", frozenset())
"""Who has shown no key, on a route that is open."""


async def identity_of(request: Request) -> Identity:
    """Who asks, as the guard found; a coroutine only because FastAPI would send a plain function to a thread.

    Fails where no guard stands in front: that would be a bug, and not a reason to let everybody in.
    """
    found: Identity = request.state.identity
    return found


Caller = Annotated[Identity, Depends(identity_of)]
