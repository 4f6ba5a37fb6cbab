"""How the queue talks to Redis: the scripts, and one error for every fault."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from service.errors import NotDurable, RedisUnavailable
from service.messages import Priority
from service.queue import keys, scripts
from service.queue.connect import CONNECTIONS, build_client, build_reader
from service.queue.patience import Slots, fair_timeout
from service.queue.records import Records
from service.queue.scripts import Argument, Script, ScriptCall
from service.settings import Settings

HEARD_S = 3
"""A replica says once a second how far it is; one that has been silent for longer is cut off, or as good as."""


class Store:
    """One process's way to the queue's Redis. Nothing is sent before the first call."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self.redis, self.settings = redis, settings
        self.reader = build_reader(redis)
        self.records = Records()
        self.slots = Slots(CONNECTIONS)
        self.doubtful = False
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
        async with self.answer():
            return await self._send_known(script, calls)

    async def run_durably(self, script: Script, call: ScriptCall) -> Any:
        """``run``, and as many replicas as the settings want have what it wrote; it must write something.

        Raises NotDurable when they have not: then the script has run all the same, or soon will. After that nothing is
        written any more before enough replicas are in touch, so that a cut makes work for a moment only.
        """
        wanted, limit_s = self.settings.durable_replicas, self.settings.durable_timeout_s
        if not wanted:
            return await self.run(script, call)
        # Like any other answer, unless the replicas alone may take longer than half of its time.
        async with self.answer(max(0.0, limit_s - self.settings.redis_timeout_s / 2)):
            if self.doubtful:
                require(wanted, await self._replicas())
            reply, reached = await self._send_known(script, [call], "WAIT", wanted, max(1, round(limit_s * 1000)))
            self.doubtful = reached < wanted
            if self.doubtful:  # whom its replicas have left may be the primary no more: new connections find out
                await self.redis.connection_pool.disconnect(inuse_connections=False)
        require(wanted, reached)
        return reply

    async def require_replicas(self) -> None:
        """Raises NotDurable when durable mode needs more replicas than are in touch."""
        if wanted := self.settings.durable_replicas:
            async with self.answer():
                require(wanted, await self._replicas())

    async def _replicas(self) -> int:
        """How many are in touch."""
        known: Any = await self.redis.info("replication")
        rows = [known[f"slave{number}"] for number in range(known.get("connected_slaves", 0))]
        return sum(row["state"] == "online" and row["lag"] <= HEARD_S for row in rows)

    async def _send_known(self, script: Script, calls: Sequence[ScriptCall], *command: Argument) -> list[Any]:
        """``_send_all`` to a Redis that may not have seen the script; redis-py's way asks before every pipeline."""
        registered = self.scripts[script]
        try:
            return await self._send_all(registered.sha, calls, command)
        except NoScriptError:
            await self.redis.script_load(registered.script)
            return await self._send_all(registered.sha, calls, command)

    async def _send_all(self, sha: str, calls: Sequence[ScriptCall], command: Sequence[Argument]) -> list[Any]:
        """The replies of all calls, and of the ``command`` behind them, over one connection."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.evalsha(sha, len(call.keys), *call.keys, *call.arguments)
            if command:
                pipe.execute_command(*command)
            replies: list[Any] = await pipe.execute()
        return replies

    def job_arguments(self, job_id: str) -> dict[str, Argument]:
        """What common.lua is given."""
        return {"id": job_id, "result_ttl_s": self.settings.result_ttl_s}


def require(wanted: int, reached: int) -> None:
    """Raises NotDurable."""
    if reached < wanted:
        raise NotDurable(f"{reached} of the {wanted} replicas that must have a job before it is accepted answer")


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
