"""What operators ask of the queue: depths, ages, counts. All of it is in Redis and outlives every process."""

from typing import Any

from service.messages import Priority, Status
from service.queue import keys, scripts
from service.queue.store import Store


class Figures:
    """Every method raises RedisUnavailable."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def depths(self, model: str) -> dict[str, int]:
        """Jobs that wait or run, per priority."""
        async with self.store.answer(), self.store.redis.pipeline(transaction=True) as pipe:
            for priority in Priority:
                pipe.zcard(keys.active(model, priority))
            counts = await pipe.execute()
        return {priority.value: int(count) for priority, count in zip(Priority, counts, strict=True)}

    async def oldest_s(self, model: str) -> dict[str, float]:
        """Seconds that the oldest job waits which no worker has read, per priority; 0 when there is none."""
        lanes = [
            key
            for lane in Priority
            for key in (keys.stream(model, lane), keys.order(model, lane), keys.active(model, lane))
        ]
        ages_ms = await self.store.run(scripts.OLDEST, scripts.OLDEST.call({}, {"group": keys.GROUP}, rest_keys=lanes))
        return {priority.value: age_ms / 1000 for priority, age_ms in zip(Priority, ages_ms, strict=True)}

    async def fenced_writes(self) -> int:
        """Writes refused since Redis was set up, because another worker owned the job."""
        return await self._counter("fenced")

    async def dead_lettered(self) -> int:
        """Jobs given up since Redis was set up, because each worker that ran them was lost."""
        return await self._counter("dead_lettered")

    async def ended(self) -> dict[str, int]:
        """Jobs that ended since Redis was set up, per status: also those that no worker ever ran."""
        names = [status.value for status in Status if status.terminal]
        async with self.store.answer():
            counts: Any = await self.store.redis.hmget(keys.COUNTERS, names)
        return {name: int(count or 0) for name, count in zip(names, counts, strict=True)}

    async def webhooks(self) -> tuple[int, float]:
        """How many have no answer yet, those of jobs in progress too, and the seconds since one was first due."""
        async with self.store.answer(), self.store.redis.pipeline(transaction=True) as pipe:
            pipe.zcard(keys.WEBHOOKS)
            pipe.zrange(keys.WEBHOOKS, 0, 0, withscores=True)
            pipe.time()
            count, first, (seconds, _) = await pipe.execute()
        return count, max(0.0, seconds - first[0][1] / 1000) if first else 0.0

    async def memory(self) -> tuple[int, int]:
        """Bytes that Redis uses, and the most that it may use; 0: it has no limit."""
        async with self.store.answer():
            info: Any = await self.store.redis.info("memory")
        return info["used_memory"], info["maxmemory"]

    async def _counter(self, name: str) -> int:
        async with self.store.answer():
            return int(await self.store.redis.hget(keys.COUNTERS, name) or 0)
