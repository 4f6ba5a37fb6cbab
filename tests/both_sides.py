"""Both sides of the queue over one connection, as no process of ours has them: short for tests."""

from typing import Self

from redis.asyncio import Redis

from service.messages import Failure
from service.queue.claims import Claims
from service.queue.figures import Figures
from service.queue.leases import Leases
from service.queue.registrations import Registrations
from service.queue.store import Store
from service.queue.submissions import Submissions
from service.settings import Settings


class JobQueue(Submissions, Leases, Registrations, Figures):
    def __init__(self, store: Store) -> None:
        Submissions.__init__(self, store)
        Leases.__init__(self, store)
        self.claims = Claims(self)
        self.take, self.recover = self.claims.take, self.claims.recover

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        return cls(Store.connect(settings))

    @property
    def redis(self) -> Redis:
        return self.store.redis

    @property
    def settings(self) -> Settings:
        return self.store.settings

    async def close(self) -> None:
        await self.store.close()

    async def ping(self) -> None:
        await self.store.ping()


def failing(reason: str) -> Failure:
    return Failure(kind="inference-failed", message=reason)
