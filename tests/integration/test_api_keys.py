"""API keys in a real Redis: made, found, rotated, revoked, by Redis's clock, and safe to ask for twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from queue_support import LossyProxy, eventually, settings_for
from redis.exceptions import OutOfMemoryError

from service.errors import Conflict, NotFound, OtherVersion
from service.gateway.access.tokens import Minted, mint
from service.local.redis import RedisServer
from service.queue import keys
from service.queue.account import Account
from service.queue.api_keys import LISTED_AT_ONCE, TOUCH_MS, ApiKeys, Grant
from service.queue.store import Store

pytestmark = pytest.mark.anyio

GRANT = Grant(name="Zoë's laptop", scopes=("generate", "metrics"), weight=2.5, cost_per_minute=100, jobs=0)
HOUR_MS = 3_600_000


@asynccontextmanager
async def keys_of(url: str) -> AsyncIterator[ApiKeys]:
    store = Store.connect(settings_for(url))
    try:
        yield ApiKeys(store)
    finally:
        await store.close()


@pytest.fixture
async def ring(redis_url: str) -> AsyncIterator[ApiKeys]:
    async with keys_of(redis_url) as ring:
        yield ring


async def make(ring: ApiKeys, ttl_ms: int | None = None, grant: Grant = GRANT) -> Minted:
    minted = mint()
    assert await ring.create(minted.id, minted.digest, grant, ttl_ms)
    return minted


async def rotate(ring: ApiKeys, minted: Minted, overlap_ms: int) -> Minted:
    new = mint(minted.id)
    await ring.rotate(minted.id, new.digest, overlap_ms)
    return new


async def valid(ring: ApiKeys, *minted: Minted) -> list[bool]:
    return [(await ring.find(one.digest)).valid for one in minted]


async def test_a_key_is_found_by_its_digest_alone(ring: ApiKeys) -> None:
    assert (await ring.find(mint().digest)).any_exist is False
    minted = await make(ring)
    found = await ring.find(minted.digest)
    assert (found.valid, found.any_exist) == (True, True)
    assert found.key is not None
    assert {name: getattr(found.key, name) for name in Grant.model_fields} == GRANT.model_dump()
    assert (found.key.id, found.key.expires_ms, found.key.revoked_ms) == (minted.id, None, None)
    other = await ring.find(mint(minted.id).digest)
    assert (other.key, other.valid, other.any_exist) == (None, False, True)


async def test_what_redis_holds_is_no_secret(ring: ApiKeys) -> None:
    minted = await make(ring)
    secret = minted.token.rpartition("_")[2].encode()
    for name in await ring.store.redis.keys("*"):
        assert secret not in await ring.store.redis.dump(name)
    row = await ring.store.redis.hgetall(keys.api_key(minted.id))
    assert row[b"digests"] == minted.digest.encode()
    assert minted.digest not in repr(await ring.list())


async def test_limits_that_a_key_does_not_have_are_the_services(ring: ApiKeys) -> None:
    minted = await make(ring)
    key = (await ring.find(minted.digest)).key
    assert key is not None
    usual = Account(cost_per_minute=7, jobs=8, result_bytes=9)
    assert key.account(usual) == Account(minted.id, 2.5, cost_per_minute=100, jobs=0, result_bytes=9)
    assert key.account() == Account(minted.id, 2.5, cost_per_minute=100)


async def test_an_id_that_is_taken_is_no_other_keys(ring: ApiKeys) -> None:
    minted = await make(ring)
    other = mint(minted.id)
    assert not await ring.create(other.id, other.digest, GRANT)
    assert await valid(ring, minted, other) == [True, False]
    assert len(await ring.list()) == 1


async def test_it_expires_by_redis_clock(ring: ApiKeys) -> None:
    short, long = await make(ring, ttl_ms=150), await make(ring, ttl_ms=HOUR_MS)
    assert await valid(ring, long) == [True]

    async def over() -> bool:
        return not (await ring.find(short.digest)).valid

    await eventually(over)
    listed, now_ms = {key.id: key for key in await ring.list()}, await ring.now_ms()
    assert [listed[minted.id].state(now_ms) for minted in (short, long)] == ["expired", "active"]
    assert listed[short.id].expires_ms == listed[short.id].created_ms + 150 <= now_ms
    with pytest.raises(Conflict, match=f"key {short.id} is expired"):
        await rotate(ring, short, 0)


async def test_a_revoked_key_is_kept_and_its_end_reopens_nothing(ring: ApiKeys) -> None:
    minted = await make(ring)
    assert await ring.any_exist()
    await ring.revoke(minted.id)
    [first] = await ring.list()
    await ring.revoke(minted.id)
    found = await ring.find(minted.digest)
    assert (found.valid, found.key) == (False, first)
    assert first.revoked_ms is not None
    assert first.state(0) == "revoked"
    assert await ring.any_exist()
    with pytest.raises(Conflict, match=f"key {minted.id} is revoked"):
        await rotate(ring, minted, HOUR_MS)


async def test_an_unknown_key_is_named(ring: ApiKeys) -> None:
    with pytest.raises(NotFound, match="no key nobody; `vqd keys list`"):
        await ring.revoke("nobody")
    with pytest.raises(NotFound, match="no key nobody"):
        await ring.rotate("nobody", mint().digest, 0)
    assert not await ring.any_exist()
    assert await ring.store.redis.keys("*") == []


async def test_both_secrets_are_valid_during_the_overlap_and_then_the_new_one(ring: ApiKeys) -> None:
    old = await make(ring)
    new = await rotate(ring, old, HOUR_MS)
    assert await valid(ring, old, new) == [True, True]
    newest = await rotate(ring, new, 150)

    async def only_the_newest() -> bool:
        return await valid(ring, old, new, newest) == [False, False, True]

    await eventually(only_the_newest)
    [key] = await ring.list()
    assert key.id == old.id


async def test_a_longer_overlap_makes_no_secret_last_longer(ring: ApiKeys) -> None:
    old = await make(ring)
    new = await rotate(ring, old, 150)
    await rotate(ring, new, HOUR_MS)

    async def over() -> bool:
        return await valid(ring, old, new) == [False, True]

    await eventually(over)


async def test_without_overlap_the_old_secrets_end_at_once_and_leave_nothing(ring: ApiKeys) -> None:
    old = await make(ring)
    for _ in range(3):
        new = await rotate(ring, old, 0)
    assert await valid(ring, old, new) == [False, True]
    assert await ring.store.redis.hkeys(keys.KEY_SECRETS) == [new.digest.encode()]


async def test_rotations_at_once_lose_none(ring: ApiKeys) -> None:
    old = await make(ring)
    new = await asyncio.gather(*(rotate(ring, old, HOUR_MS) for _ in range(20)))
    assert all(await valid(ring, old, *new))
    await ring.revoke(old.id)
    assert not any(await valid(ring, old, *new))


async def test_a_secret_of_which_its_key_knows_nothing_is_not_valid(ring: ApiKeys) -> None:
    """Whoever can write to one hash only gets nowhere."""
    minted, forged = await make(ring), mint()
    await ring.store.redis.hset(keys.KEY_SECRETS, forged.digest, f"{minted.id} 0")
    assert await valid(ring, minted, forged) == [True, False]


async def test_its_last_use_is_written_once_a_minute(ring: ApiKeys) -> None:
    minted = await make(ring)
    await ring.find(mint().digest)
    assert [key.used_ms for key in await ring.list()] == [None]
    await ring.find(minted.digest)
    [used] = await ring.list()
    assert used.used_ms is not None
    assert abs(used.used_ms - await ring.now_ms()) < TOUCH_MS
    await ring.find(minted.digest)
    assert await ring.list() == [used]
    before = used.used_ms - TOUCH_MS
    await ring.store.redis.hset(keys.api_key(minted.id), "used_ms", before)
    await ring.find(minted.digest)
    [again] = await ring.list()
    assert again.used_ms is not None
    assert again.used_ms >= used.used_ms


async def test_a_key_that_is_not_valid_is_not_used(ring: ApiKeys) -> None:
    minted = await make(ring)
    await ring.revoke(minted.id)
    await ring.find(minted.digest)
    assert [key.used_ms for key in await ring.list()] == [None]


async def test_more_keys_than_are_asked_for_at_once_are_all_listed(ring: ApiKeys) -> None:
    async with ring.store.redis.pipeline(transaction=False) as pipe:
        for number in range(LISTED_AT_ONCE + 1):
            pipe.zadd(keys.API_KEYS, {f"k{number}": number})
            pipe.hset(keys.api_key(f"k{number}"), mapping={"name": "x", "scopes": "read", "created_ms": number})
        await pipe.execute()
    assert [key.id for key in await ring.list()] == [f"k{number}" for number in range(LISTED_AT_ONCE + 1)]


async def test_what_another_version_wrote_is_said_to_be_so(ring: ApiKeys) -> None:
    minted = await make(ring)
    await ring.store.redis.hset(keys.api_key(minted.id), mapping={"weight": "heavy", "colour": "red"})
    with pytest.raises(OtherVersion, match=f"key {minted.id} is a record of another version"):
        await ring.find(minted.digest)
    await ring.store.redis.hset(keys.api_key(minted.id), "weight", 1)
    assert await valid(ring, minted) == [True]


@pytest.mark.parametrize("script", ["create", "rotate", "revoke"])
async def test_a_lost_reply_does_nothing_twice(script: str, redis_url: str) -> None:
    async with LossyProxy(redis_url) as proxy, keys_of(proxy.url) as ring:
        for known in ring.store.scripts.values():
            await ring.store.redis.script_load(known.script)
        if script == "create":
            proxy.lose_reply(b"EVALSHA")
            minted = await make(ring)
        else:
            minted = await make(ring)
            proxy.lose_reply(b"EVALSHA")
            await (rotate(ring, minted, HOUR_MS) if script == "rotate" else ring.revoke(minted.id))
        assert proxy.lost == 1
        [key] = await ring.list()
        digests = await ring.store.redis.hget(keys.api_key(key.id), "digests")
        assert len(digests.split()) == await ring.store.redis.hlen(keys.KEY_SECRETS) == 1 + (script == "rotate")
        assert await valid(ring, minted) == [script != "revoke"]


async def test_over_the_memory_limit_keys_are_found_rotated_and_revoked(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        async with keys_of(server.url) as ring:
            minted, redis = await make(ring), ring.store.redis
            await redis.config_set("maxmemory", int((await redis.info("memory"))["used_memory"] / 1.1))
            with pytest.raises(OutOfMemoryError):
                await redis.set("anything", "x")
            new = await rotate(ring, minted, HOUR_MS)
            assert await valid(ring, minted, new) == [True, True]
            await ring.revoke(minted.id)
            assert await valid(ring, minted, new) == [False, False]
