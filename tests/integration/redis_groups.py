"""Several real redis-servers that belong together: a primary with replicas, Sentinels, a cluster. And a line to cut."""

import asyncio
import contextlib
import random
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis
from gateway_harness import Background, until

from service.folders import make_folder
from service.local.processes import spawn
from service.local.redis import RedisServer, find_redis_server
from service.sockets import port_is_free

SERVICE = "vqd"
SLOTS = 16384
BUS = 10_000
"""A node of a cluster also listens so far above its port."""
REACTION = {"down-after-milliseconds": 500, "failover-timeout": 2000}


class Node(RedisServer):
    """A redis-server with options of its own, given to it in the environment's order."""

    def __init__(self, folder: Path, port: int = 0, **options: object) -> None:
        super().__init__(folder, port)
        self.options = options

    def launch(self) -> None:
        make_folder(self.folder)
        usual: dict[str, object] = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "save": "''"}
        usual |= {"repl-diskless-sync": "yes", "repl-diskless-sync-delay": 0} | self.options
        lines = "".join(f"{name.replace('_', '-')} {value}\n" for name, value in usual.items())
        (self.folder / "redis.conf").write_text(lines)
        self.process = spawn([find_redis_server(), str(self.folder / "redis.conf")], self.log)

    @contextmanager
    def client(self) -> Iterator[redis.Redis]:
        with redis.Redis(port=self.port, socket_timeout=5) as client:
            yield client

    def ask(self, *command: object) -> Any:
        with self.client() as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]

    def cluster_says(self, fact: str) -> bool:
        """Whether it stands in the node's view of its cluster, such as cluster_state:ok."""
        return fact.encode() in self.ask("CLUSTER", "INFO").split()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Sentinel(Node):
    """A redis-server that watches a primary of the name ``SERVICE``."""

    def __init__(self, folder: Path, primary: Node, quorum: int) -> None:
        super().__init__(folder)
        self.primary, self.quorum = primary, quorum

    def launch(self) -> None:
        make_folder(self.folder)
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}"]
        lines += [f"sentinel monitor {SERVICE} 127.0.0.1 {self.primary.port} {self.quorum}"]
        lines += [f"sentinel {name} {SERVICE} {value}" for name, value in REACTION.items()]
        (self.folder / "sentinel.conf").write_text("\n".join(lines))
        self.process = spawn([find_redis_server(), str(self.folder / "sentinel.conf"), "--sentinel"], self.log)

    def knows(self, replicas: int, others: int) -> bool:
        with self.client() as client:
            state = client.sentinel_master(SERVICE)
        return bool(state["num-slaves"] == replicas and state["num-other-sentinels"] == others)


class Line:
    """A TCP line to a port of this machine. Cut, it is silent: nothing goes through and nothing is closed.

    ``read``: bytes that came in at either end.
    """

    def __init__(self, port: int) -> None:
        self.read = 0
        self.target, self.background, self.whole = port, Background(), asyncio.Event()
        self.whole.set()
        self.serving: set[asyncio.Task[None]] = set()

    def __enter__(self) -> "Line":
        self.server = self.background.call(asyncio.start_server(self.accept, "127.0.0.1", 0))
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self.background.call(self.close())

    async def close(self) -> None:
        self.server.close()
        for task in self.serving:
            task.cancel()
        await asyncio.gather(*self.serving, return_exceptions=True)

    def cut(self) -> None:
        self.background.loop.call_soon_threadsafe(self.whole.clear)

    def heal(self) -> None:
        self.background.loop.call_soon_threadsafe(self.whole.set)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.add(asyncio.create_task(self.serve(reader, writer)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            with contextlib.closing(back):
                await asyncio.gather(self.pump(reader, back), self.pump(there, writer))

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                self.read += len(data)
                await self.whole.wait()
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()


def followed(primary: Node, replicas: int = 1) -> bool:
    """Whether so many replicas have said how far they are, as they do once a second: before, they are sent nothing."""
    primary.ask("SET", "{vqd}:written", "by a test")
    state = primary.ask("INFO", "replication")
    return sum(state[f"slave{number}"]["offset"] > 0 for number in range(state["connected_slaves"])) == replicas


@contextmanager
def watched(folder: Path, replicas: int = 2, sentinels: int = 3) -> Iterator[tuple[list[Node], list[Sentinel], str]]:
    """A primary, which is the first node, its replicas, and Sentinels that know each other; the URL of them."""
    with ExitStack() as stack:
        primary = stack.enter_context(Node(folder / "0"))
        of = f"127.0.0.1 {primary.port}"
        nodes = [stack.enter_context(Node(folder / str(number + 1), replicaof=of)) for number in range(replicas)]
        until(lambda: followed(primary, replicas))
        places = [folder / f"sentinel-{number}" for number in range(sentinels)]
        watchers = [stack.enter_context(Sentinel(place, primary, sentinels // 2 + 1)) for place in places]
        until(lambda: all(one.knows(replicas, sentinels - 1) for one in watchers), pause_s=0.1)
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in watchers)
        yield [primary, *nodes], watchers, f"redis+sentinel://{hosts}/{SERVICE}/0"


def free_ports_of_a_node() -> int:
    """Below those that the kernel gives to whoever asks for any: nobody takes the second one meanwhile."""
    while True:
        port = random.randrange(11_000, 22_000)
        if all(port_is_free("127.0.0.1", each) for each in (port, port + BUS)):
            return port


@contextmanager
def clustered(folder: Path, slot: int, primaries: int = 3) -> Iterator[tuple[list[Node], str]]:
    """Nodes of a cluster: the primaries, of which the first owns ``slot``, then a replica of the first; their URL."""
    options = {"cluster_enabled": "yes", "cluster_node_timeout": 1000, "cluster_require_full_coverage": "no"}
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(Node(folder / str(number), free_ports_of_a_node(), **options))
            for number in range(primaries + 1)
        ]
        for node in nodes[1:]:
            node.ask("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        others = [other for other in range(SLOTS) if other != slot]
        nodes[0].ask("CLUSTER", "ADDSLOTS", slot, *others[::primaries])
        for number in range(1, primaries):
            nodes[number].ask("CLUSTER", "ADDSLOTS", *others[number::primaries])
        until(lambda: all(node.cluster_says(f"cluster_known_nodes:{len(nodes)}") for node in nodes))
        nodes[-1].ask("CLUSTER", "REPLICATE", nodes[0].ask("CLUSTER", "MYID"))
        until(lambda: all(node.cluster_says("cluster_state:ok") for node in nodes))
        until(lambda: followed(nodes[0]))
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        yield nodes, f"redis+cluster://{hosts}/0"
