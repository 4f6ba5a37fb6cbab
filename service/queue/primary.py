"""Connections to whoever has our keys now, when that may be another server tomorrow."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import ClusterDownError, MovedError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

Address = tuple[str, int]
"""Host and port."""

ELSEWHERE = (ReadOnlyError, MovedError, ClusterDownError)
"""What a server says that has our keys no more: a replica now, or of another shard, or cut off from its cluster."""
SCRIPT_ON_A_REPLICA = "READONLY You can't write"
"""The same from a script of Redis 6, which wraps it in an error of its own."""


class Guides:
    """Servers that can tell where our keys are: Sentinels, or nodes of a cluster.

    All are asked at once, and the first that knows counts. In turn, as redis-py asks Sentinels, one that was lost
    together with the primary would take the whole time that an answer may take, again and again.
    """

    def __init__(
        self,
        places: Sequence[Address],
        question: Sequence[str],
        read: Callable[[Any, str], Address],
        kind: type[Connection],
        options: Mapping[str, Any],
        limit_s: float,
    ) -> None:
        self.places, self.question, self.read = places, question, read
        self.kind, self.options, self.limit_s = kind, options, limit_s
        self.address: Address | None = None
        """The last answer."""

    async def find(self) -> Address:
        """Raises RedisConnectionError, with what each of them said, when none knows in time."""
        asking = [asyncio.create_task(self._ask(*place)) for place in self.places]
        said = []
        try:
            async with asyncio.timeout(self.limit_s):
                for answer in asyncio.as_completed(asking):
                    try:
                        self.address = await answer
                        return self.address
                    except (RedisError, OSError) as error:
                        said.append(str(error))
        except TimeoutError:
            said.append("no answer in time")
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        raise RedisConnectionError(f"{self.question[0]}: nobody says where the primary is: {'; '.join(said)}")

    async def _ask(self, host: str, port: int) -> Address:
        connection = self.kind(host=host, port=port, **self.options)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command(*self.question)
            return self.read(await connection.read_response(), host)
        finally:
            await connection.disconnect(nowait=True)


def named_by_sentinel(answer: Any, _: str) -> Address:
    """The answer to SENTINEL GET-MASTER-ADDR-BY-NAME. Raises RedisConnectionError for a name it does not know."""
    if answer is None:
        raise RedisConnectionError("a Sentinel does not know the service")
    host, port = answer
    return host.decode(), int(port)


def owner_of(slot: int, answer: Any, asked: str) -> Address:
    """The primary of ``slot`` in the answer to CLUSTER SLOTS; a node without a name is the one we asked."""
    for first, last, (host, port, *_), *_ in answer:
        if first <= slot <= last:
            return (host or b"").decode() or asked, int(port)
    raise RedisConnectionError("a node of the cluster knows no owner of our keys")


class PrimaryConnection(Connection):
    """Goes where ``guides`` say, who are asked for each new connection; without any, where its host and port are.

    It ends when its server says that the keys are elsewhere: redis-py then repeats what may be repeated, over a new
    connection.
    """

    def __init__(self, *, guides: Guides | None = None, **options: Any) -> None:
        self.guides = guides
        super().__init__(**options)

    async def connect(self) -> None:
        """The pool asks for this before each use. One that others have found out of date is made anew, since its
        server may be silent for ever."""
        if self.guides and self.is_connected and (self.host, self.port) != self.guides.address:
            await self.disconnect(nowait=True)
        await super().connect()  # type: ignore[no-untyped-call]

    async def _connect(self) -> None:
        if self.guides:
            self.host, self.port = await self.guides.find()
        await super()._connect()  # type: ignore[no-untyped-call]

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*arguments, **options)
        except ResponseError as error:
            if not isinstance(error, ELSEWHERE) and SCRIPT_ON_A_REPLICA not in str(error):
                raise
            await self.disconnect(nowait=True)
            raise RedisConnectionError(f"the keys are elsewhere now: {error}") from error


class PrimarySSLConnection(PrimaryConnection, SSLConnection):
    """Over TLS."""
