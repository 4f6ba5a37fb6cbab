"""API keys at rest: what each may do, and the SHA-256 of its tokens. No token ever comes here."""

import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from service.errors import Conflict, NotFound
from service.queue import keys
from service.queue.account import ANYBODY, Account
from service.queue.scripts import CREATE_KEY, FIND_KEY, REVOKE_KEY, ROTATE_KEY, Argument
from service.queue.store import Store

TOUCH_MS = 60_000
"""``used_ms`` is no more exact than this: a write for each request would cost more than it tells."""
LISTED_AT_ONCE = 1000


class Grant(BaseModel):
    """What a key may do and use. A limit of None is the service's default, one of 0 is none."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    scopes: tuple[str, ...]
    weight: float = 1.0
    cost_per_minute: int | None = None
    jobs: int | None = None
    result_bytes: int | None = None

    @field_validator("scopes", mode="before")
    @classmethod
    def from_words(cls, value: object) -> object:
        return value.split() if isinstance(value, str) else value

    def fields(self) -> Iterator[str]:
        """Name and value in turn, as Redis keeps them; what is None is left out."""
        for name, value in self.model_dump(exclude_none=True).items():
            yield name
            yield " ".join(value) if isinstance(value, tuple) else str(value)


class ApiKey(Grant):
    """One key. Times in ms, by Redis's clock; None: never. ``used_ms`` may be a minute old."""

    id: str
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None
    used_ms: int | None = None

    def state(self, now_ms: int) -> str:
        if self.revoked_ms is not None:
            return "revoked"
        return "expired" if self.expires_ms is not None and now_ms >= self.expires_ms else "active"

    def account(self, usual: Account = ANYBODY) -> Account:
        """``usual``: the limits of a key that says nothing."""
        limits = {"cost_per_minute": self.cost_per_minute, "jobs": self.jobs, "result_bytes": self.result_bytes}
        said = {name: getattr(usual, name) if limit is None else limit for name, limit in limits.items()}
        return Account(owner=self.id, weight=self.weight, **said)


@dataclass(frozen=True)
class Found:
    """``key``: whose token it is, valid or not. ``any_exist``: whether there are keys at all."""

    key: ApiKey | None
    valid: bool
    any_exist: bool


class ApiKeys:
    """Every key. A digest is the SHA-256 of a whole token, in hex. Every method raises RedisUnavailable."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def create(self, key_id: str, digest: str, grant: Grant, ttl_ms: int | None = None) -> bool:
        """Whether it was made: False when another key has this id."""
        touched = {"ids": keys.API_KEYS, "secrets": keys.KEY_SECRETS, "key": keys.api_key(key_id)}
        told: dict[str, Argument] = {"id": key_id, "digest": digest, "ttl_ms": "" if ttl_ms is None else ttl_ms}
        return bool(await self.store.run(CREATE_KEY, CREATE_KEY.call(touched, told, rest=grant.fields())))

    async def rotate(self, key_id: str, digest: str, overlap_ms: int) -> None:
        """Another secret; the present ones end after ``overlap_ms``. Raises NotFound, Conflict."""
        touched = {"secrets": keys.KEY_SECRETS, "key": keys.api_key(key_id)}
        told: dict[str, Argument] = {"id": key_id, "digest": digest, "overlap_ms": overlap_ms}
        outcome: bytes = await self.store.run(ROTATE_KEY, ROTATE_KEY.call(touched, told))
        if outcome == b"unknown":
            raise unknown(key_id)
        if outcome != b"rotated":
            raise Conflict(f"key {key_id} is {outcome.decode()}; make a new one")

    async def revoke(self, key_id: str) -> None:
        """End it for ever, at once. Raises NotFound."""
        if not await self.store.run(REVOKE_KEY, REVOKE_KEY.call({"key": keys.api_key(key_id)})):
            raise unknown(key_id)

    async def find(self, digest: str) -> Found:
        """Whose token this is, in one trip that takes the same time whatever the answer. Raises OtherVersion."""
        touched = {"ids": keys.API_KEYS, "secrets": keys.KEY_SECRETS, "prefix": keys.api_key("")}
        call = FIND_KEY.call(touched, {"digest": digest, "touch_ms": TOUCH_MS})
        count, key_id, valid, flat = await self.store.run(FIND_KEY, call)
        row = dict(zip(flat[::2], flat[1::2], strict=True))
        known = row.get(b"digests", b"").decode().split()
        matches = [hmac.compare_digest(digest, one) for one in known]
        key = self._read(key_id, row) if row else None
        return Found(key, bool(valid) and any(matches), bool(count))

    async def any_exist(self) -> bool:
        """Whether a key was ever made here."""
        async with self.store.answer():
            return bool(await self.store.redis.exists(keys.API_KEYS))

    async def list(self) -> list[ApiKey]:
        """All, oldest first, revoked ones too. Raises OtherVersion."""
        async with self.store.answer():
            ids: Any = await self.store.redis.zrange(keys.API_KEYS, 0, -1)
        found = []
        for start in range(0, len(ids), LISTED_AT_ONCE):
            portion = ids[start : start + LISTED_AT_ONCE]
            async with self.store.answer(), self.store.redis.pipeline(transaction=False) as pipe:
                for key_id in portion:
                    pipe.hgetall(keys.api_key(key_id.decode()))
                rows = await pipe.execute()
            found += [self._read(key_id, row) for key_id, row in zip(portion, rows, strict=True) if row]
        return found

    async def now_ms(self) -> int:
        """By Redis's clock."""
        async with self.store.answer():
            seconds, microseconds = await self.store.redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def _read(self, key_id: bytes, row: dict[bytes, bytes]) -> ApiKey:
        """Raises OtherVersion."""
        fields: dict[str, Any] = {name.decode(): value.decode() for name, value in row.items()}
        with self.store.records.reading("key", key_id.decode()):
            return ApiKey.model_validate(fields | {"id": key_id.decode()})


def unknown(key_id: str) -> NotFound:
    return NotFound(f"there is no key {key_id}; `vqd keys list` shows all")
