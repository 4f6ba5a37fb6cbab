"""API keys for tests, made straight in Redis, and what a gateway answers to them."""

import redis
from gateway_harness import Background, RunningGateway, until

from service.gateway.access.tokens import Minted, mint
from service.queue import keys
from service.queue.api_keys import ApiKeys, Grant
from service.queue.store import Store
from service.settings import Settings


class Keyring:
    """The keys of one Redis, from a thread without an event loop."""

    def __init__(self, settings: Settings) -> None:
        self.background, self.settings = Background(), settings
        self.keys = self.background.call(self.connected())

    async def connected(self) -> ApiKeys:
        return ApiKeys(Store.connect(self.settings))

    def make(self, *scopes: str, ttl_ms: int | None = None, name: str = "a test's") -> Minted:
        minted = mint()
        grant = Grant(name=name, scopes=scopes or ("generate",))
        assert self.background.call(self.keys.create(minted.id, minted.digest, grant, ttl_ms))
        return minted

    def rotate(self, minted: Minted, overlap_ms: int) -> Minted:
        new = mint(minted.id)
        self.background.call(self.keys.rotate(minted.id, new.digest, overlap_ms))
        return new

    def revoke(self, minted: Minted) -> None:
        self.background.call(self.keys.revoke(minted.id))

    def expired(self) -> Minted:
        """A key that was valid until a moment ago."""
        minted = self.make("admin", ttl_ms=1)
        until(lambda: not self.background.call(self.keys.find(minted.digest)).valid)
        return minted

    def revoked(self) -> Minted:
        minted = self.make("admin")
        self.revoke(minted)
        return minted

    def close(self) -> None:
        self.background.call(self.keys.store.close())


def bearer(minted: Minted) -> dict[str, str]:
    return {"Authorization": f"Bearer {minted.token}"}


def give(settings: Settings, job_id: str, owner: Minted) -> None:
    """What the queue writes of a job that a key makes."""
    with redis.Redis.from_url(settings.redis_url) as client:
        client.hset(keys.job(job_id), "owner", owner.id)


def status(gateway: RunningGateway, minted: Minted, path: str = "/v1/models") -> int:
    return gateway.http.get(path, headers=bearer(minted)).status_code
