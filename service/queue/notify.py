"""One pub/sub connection that tells a gateway which jobs changed."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Self

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from service.queue import keys
from service.queue.connect import build_client
from service.settings import Settings

SILENCE_S = 5.0
"""After this long without a message the connection is tested: a dead peer looks just like a quiet one."""

log = logging.getLogger(__name__)


class Watch:
    """A change of the watched job between two waits is kept for the second one. ``only_end``: only its end is one."""

    def __init__(self, only_end: bool) -> None:
        self.only_end = only_end
        self.changed = asyncio.Event()

    async def wait(self, timeout_s: float) -> None:
        """Return at a change since the last wait (or since the watch began), or after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.changed.wait()
        except TimeoutError:
            return
        self.changed.clear()


class Notifier:
    """Wakes those who wait for a job. A wake-up says only "look": the truth is read from the queue."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.watches: dict[str, set[Watch]] = defaultdict(set)

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        return cls(build_client(settings))

    async def close(self) -> None:
        await self.redis.aclose()

    @contextmanager
    def watch(self, job_id: str, only_end: bool = False) -> Iterator[Watch]:
        """Begin before reading the job, so that no change falls between the reading and the waiting."""
        watch = Watch(only_end)
        self.watches[job_id].add(watch)
        try:
            yield watch
        finally:
            self.watches[job_id].discard(watch)
            if not self.watches[job_id]:
                del self.watches[job_id]

    async def wait(self, job_id: str, timeout_s: float) -> None:
        """Wait for a change from now on; to miss none since an earlier reading, use ``watch``."""
        with self.watch(job_id) as watch:
            await watch.wait(timeout_s)

    async def run(self) -> None:
        """Listen until cancelled; the process's one task for it. Redis may go and come."""
        backoff, failures = ExponentialWithJitterBackoff(base=0.1, cap=2.0), 0
        while True:
            try:
                async with self.redis.pubsub() as pubsub:
                    async with asyncio.timeout(SILENCE_S):
                        await pubsub.subscribe(keys.CHANNEL)
                    async for message in heard(pubsub):
                        if failures:
                            log.info("Redis answers again")
                        failures = 0
                        self._wake(message)
            except (RedisError, OSError) as error:
                failures += 1
                log.warning("Redis: job notifications interrupted: %s", str(error) or type(error).__name__)
            await asyncio.sleep(backoff.compute(failures))

    def _wake(self, message: str | None) -> None:
        """``message`` is a job's id, with a word behind it when the job has ended; None wakes all."""
        job_id, _, ended = (message or "").partition(" ")
        groups = self.watches.values() if message is None else [self.watches.get(job_id, set())]
        for watch in (watch for group in groups for watch in group):
            if ended or message is None or not watch.only_end:
                watch.changed.set()


async def heard(pubsub: PubSub) -> AsyncIterator[str | None]:
    """Messages as they come; None after each (re)subscription, for messages may have been lost before it."""
    asked = False
    while True:
        message = await pubsub.get_message(timeout=SILENCE_S)
        if message is None and asked:
            raise RedisConnectionError("no answer to PING")
        if message is None:
            async with asyncio.timeout(SILENCE_S):
                await pubsub.ping()
        elif message["type"] == "subscribe":
            yield None
        elif message["type"] == "message":
            yield message["data"].decode(errors="replace")  # whatever it is, it is no job of ours
        asked = message is None
