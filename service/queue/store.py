"""How the queue talks to Redis: the client, the scripts, and one error for every fault."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError

from service.errors import RedisUnavailable, SetupError
from service.messages import Priority
from service.queue import keys, scripts
from service.queue.patience import Slots, fair_timeout
from service.queue.records import Records
from service.queue.scripts import Argument, Script, ScriptCall
from service.settings import Settings

HEALTH_CHECK_S = 15
CONNECTIONS = 64


def build_client(settings: Settings) -> Redis:
    """A client whose callers bound its answers. Raises SetupError for a wrong URL.

    It has no ``socket_timeout``: redis-py keeps that one with ``asyncio.wait_for``, which in Python 3.11 may swallow a
    cancellation, and then whoever waits for the cancelled task waits for ever.
    """
    # A broken connection is worth another try, for every script may be repeated; a silent server is not.
    retry = Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.1), 2, supported_errors=(RedisConnectionError,))
    try:
        pool = BlockingConnectionPool.from_url(
            settings.redis_url,
            max_connections=CONNECTIONS,
            timeout=settings.redis_timeout_s,
            socket_timeout=None,
            socket_connect_timeout=settings.redis_timeout_s,
            health_check_interval=HEALTH_CHECK_S,
            retry=retry,
            protocol=2,
        )
        return Redis.from_pool(pool)
    except ValueError:  # whose text may hold a piece of the password
        raise SetupError("VQD_REDIS_URL is no URL such as redis://:password@host:6379/0") from None


def build_reader(redis: Redis) -> Redis:
    """A client beside ``redis`` for reads that hand out entries: never repeated by itself."""
    pool = redis.connection_pool
    options = pool.connection_kwargs | {"retry": Retry(NoBackoff(), 0)}
    return Redis.from_pool(ConnectionPool(connection_class=pool.connection_class, **options))


class Store:
    """One process's way to the queue's Redis. Nothing is sent before the first call."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self.redis, self.settings = redis, settings
        self.reader = build_reader(redis)
        self.records = Records()
        self.slots = Slots(CONNECTIONS)
        self.scripts = {script: redis.register_script(script.source()) for script in scripts.ALL}

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """With a client of its own. Raises SetupError for a wrong URL."""
        return cls(build_client(settings), settings)

    async def close(self) -> None:
        await self.redis.aclose()
        await self.reader.aclose()

    @asynccontextmanager
    async def answer(self, more_s: float = 0.0) -> AsyncIterator[None]:
        """Whatever goes wrong between us and Redis, and an answer that is ``more_s`` too late, is RedisUnavailable.

        Waiting for one of our own connections is neither, unless Redis falls silent meanwhile.
        """
        await self.slots.take()
        try:
            async with fair_timeout(self.settings.redis_timeout_s + more_s):
                yield
        except TimeoutError as error:
            self.slots.refuse(silent)
            raise silent() from error
        except RedisError as error:
            raise RedisUnavailable(f"Redis: {str(error) or type(error).__name__}") from error
        finally:
            self.slots.give()

    async def ping(self) -> None:
        """Raises RedisUnavailable."""
        async with self.answer():
            await self.redis.ping()

    async def run(self, script: Script, call: ScriptCall) -> Any:
        """Run one script, atomically; it may be sent twice when a connection breaks."""
        async with self.answer():
            return await self.scripts[script](keys=call.keys, args=call.arguments)

    async def run_once(self, script: Script, call: ScriptCall) -> Any:
        """``run`` that is never repeated by itself, for what hands out entries."""
        async with self.answer():
            return await self.scripts[script](keys=call.keys, args=call.arguments, client=self.reader)

    async def run_all(self, script: Script, calls: Sequence[ScriptCall]) -> list[Any]:
        """One script many times, sent together; each run is atomic, all of them are not."""
        registered = self.scripts[script]
        async with self.answer():
            try:
                return await self._send_all(registered.sha, calls)
            except NoScriptError:  # a Redis that has not seen it yet; redis-py's own way asks before every pipeline
                await self.redis.script_load(registered.script)
                return await self._send_all(registered.sha, calls)

    async def _send_all(self, sha: str, calls: Sequence[ScriptCall]) -> list[Any]:
        async with self.redis.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.evalsha(sha, len(call.keys), *call.keys, *call.arguments)
            replies: list[Any] = await pipe.execute()
        return replies

    def job_arguments(self, job_id: str) -> dict[str, Argument]:
        """What common.lua is given."""
        return {"id": job_id, "result_ttl_s": self.settings.result_ttl_s}


def silent() -> RedisUnavailable:
    return RedisUnavailable("Redis: no answer in time")


def job_keys(job_id: str, model: str, priority: Priority, stream: str) -> dict[str, str]:
    """The keys of every script about a job, as common.lua names them."""
    return {
        "job": keys.job(job_id),
        "events": keys.events(job_id),
        "active": keys.active(model, priority),
        "channel": keys.CHANNEL,
        "counters": keys.COUNTERS,
        "stream": stream,
        "order": keys.order(model, priority.value),
        "turns": keys.turns(model, priority.value),
    }
