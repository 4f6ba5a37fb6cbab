"""Who a token is: of the key file, or of Redis, where an answer is remembered for a moment."""

import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from service.errors import RedisUnavailable, Unauthorized
from service.gateway.access.identity import Identity, Scope
from service.gateway.access.quota import usual
from service.gateway.access.tokens import digest, misspelt
from service.queue.account import Account
from service.queue.api_keys import ApiKey, ApiKeys
from service.settings import Settings
from service.sockets import is_loopback
from service.telemetry.logs import note_ids

REMEMBERED_S = 1.0
"""A key that is revoked, and the first key that is made, are heard of within this time."""
REMEMBERED = 10_000
"""So many keys at most, those that were looked up last."""
FIRST_KEY = (
    "no API key exists yet: make the first one with `vqd keys create NAME`, where VQD_REDIS_URL is the service's"
)
NEEDED = "send an API key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
REFUSED = "the API key is unknown, or has expired, or was revoked"
MISSPELT = "; its checksum is wrong: is it all there?"


def identity(key: ApiKey, usual: Account) -> Identity:
    """``usual``: the limits of a key that says nothing. Scopes that only another version knows are left out."""
    scopes = frozenset(scope for scope in Scope if scope in key.scopes)
    return Identity(key.account(usual), key.name, scopes)


def of_file(tokens: Sequence[str], usual: Account) -> dict[str, Identity]:
    """The keys of a key file by digest; each has every right, and the usual limits."""
    names = [f"file-{number}" for number in range(1, len(tokens) + 1)]
    every = frozenset(Scope)
    return {digest(token): Identity(replace(usual, owner=n), n, every) for token, n in zip(tokens, names, strict=True)}


class KnownKeys:
    """``filed``: the keys of the key file, by digest."""

    def __init__(
        self,
        settings: Settings,
        keys: ApiKeys,
        filed: Mapping[str, Identity],
        clock: Callable[[], float] = time.monotonic,
        remembered: int = REMEMBERED,
    ) -> None:
        self.keys, self.filed, self.clock, self.remembered = keys, filed, clock, remembered
        self.usual = usual(settings)
        self.for_all = settings.allow_unauthenticated
        self.on_loopback = is_loopback(settings.host)
        self.found: dict[str, tuple[Identity, float]] = {}
        self.exist: bool | None = None
        self.exist_until_s = 0.0

    async def key_free(self) -> bool:
        """Whether nobody needs a key now. Raises RedisUnavailable."""
        return self.for_all or (self.on_loopback and not await self.any_exist())

    @property
    def in_doubt(self) -> bool:
        """Whether this may be a service without keys, and Redis has not been there yet to say so."""
        return self.on_loopback and not self.filed and self.exist is None

    async def any_exist(self) -> bool:
        """Whether there is a key. Raises RedisUnavailable, unless it is known how it was before the outage."""
        if self.filed:
            return True
        if self.exist is None or self.clock() >= self.exist_until_s:
            try:
                self.exist = await self.keys.any_exist()
            except RedisUnavailable:
                if self.exist is None:
                    raise
            self.exist_until_s = self.clock() + REMEMBERED_S
        return self.exist

    async def identify(self, token: str | None) -> Identity:
        """Who has this token. Each that is refused costs the same one trip. Raises Unauthorized, RedisUnavailable."""
        if token is None:
            raise Unauthorized(NEEDED if await self.any_exist() else FIRST_KEY)
        asked = digest(token)
        mine = [one for known, one in self.filed.items() if hmac.compare_digest(known, asked)]  # all are looked at
        if mine:
            return mine[0]
        remembered, until_s = self.found.get(asked, (None, 0.0))
        if remembered and self.clock() < until_s:
            return remembered
        return await self.look_up(asked, REFUSED + (MISSPELT if misspelt(token) else "."))

    async def look_up(self, asked: str, refusal: str) -> Identity:
        began_s = self.clock()
        found = await self.keys.find(asked)
        if found.key:
            note_ids(key=found.key.id)
        if not (found.key and found.valid):
            self.found.pop(asked, None)
            raise Unauthorized(refusal if found.any_exist or self.filed else FIRST_KEY)
        self.found.pop(asked, None)  # the last to be looked up stands last
        if len(self.found) >= self.remembered:
            del self.found[next(iter(self.found))]
        self.found[asked] = identity(found.key, self.usual), began_s + REMEMBERED_S
        return self.found[asked][0]
