"""The supervisor behind ``vqd up``: Redis, Triton, a worker and the gateway on one machine.

Everything runs on loopback ports of its own. A part that dies is started again; whatever ends the supervisor ends
everything that it started, and nothing else.
"""

import logging
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Protocol, Self

from service.errors import SetupError
from service.local.probe import probe
from service.local.processes import end, spawn, tail
from service.local.redis import RedisServer
from service.local.triton import TritonServer
from service.settings import Settings
from service.sockets import free_port, port_answers, port_is_free

log = logging.getLogger(__name__)

READY_LIMIT_S = 120.0
POLL_S = 0.1
RESTARTS, RESTART_WINDOW_S = 5, 60.0
"""A part that dies oftener than this within the window stops everything."""


class Server(Protocol):
    """A child that can be launched again on the same port."""

    process: subprocess.Popen[bytes]
    log: Path

    def launch(self) -> None: ...
    def stop(self) -> None: ...


class CommandServer:
    """One of our own commands (``vqd worker``, ``vqd gateway``) with settings in its environment."""

    def __init__(self, command: str, environment: dict[str, str], log: Path, grace_s: float) -> None:
        self.command, self.environment, self.log, self.grace_s = command, environment, log, grace_s

    def launch(self) -> None:
        self.process = spawn([sys.executable, "-m", "service.cli", self.command], self.log, self.environment)

    def stop(self) -> None:
        end(self.process, self.grace_s)


@dataclass
class Part:
    name: str
    server: Server
    address: tuple[str, int] | None
    """Where it listens; None: nowhere that we know."""
    deaths: deque[float] = field(default_factory=deque)

    def listens(self) -> bool:
        return self.address is not None and port_answers(*self.address)

    def check(self) -> None:
        """Start it again if it died. Raises SetupError with the end of its log when it keeps dying."""
        status = self.server.process.poll()
        if status is None:
            return
        self.server.stop()  # what is left of its process group and its shared memory
        now = time.monotonic()
        self.deaths.append(now)
        while now - self.deaths[0] > RESTART_WINDOW_S:
            self.deaths.popleft()
        if len(self.deaths) > RESTARTS:
            raise SetupError(f"{self.name} keeps dying; the end of {self.server.log}:\n{tail(self.server.log)}")
        log.warning("%s ended with status %d; starting it again", self.name, status)
        self.server.launch()


class Supervisor:
    """A context manager: the whole service inside, nothing outside. Logs and Redis data go to ``folder``."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        if settings.port and not port_is_free(settings.host, settings.port):
            raise SetupError(
                f"port {settings.port} on {settings.host} is taken; choose another one with VQD_PORT or --port"
            )
        port = settings.port or free_port()
        self.url = f"http://{settings.host}:{port}"
        redis = RedisServer(folder / "redis")
        triton = TritonServer(settings.repository, folder / "triton")
        self.environment = {
            "VQD_PORT": str(port),
            "VQD_HOST": settings.host,
            "VQD_REDIS_URL": redis.url,
            "VQD_TRITON_URL": triton.grpc_url,
            "VQD_REPOSITORY": str(settings.repository),
            "VQD_LOG_FORMAT": settings.log_format,
        }
        worker = CommandServer("worker", self.environment, folder / "worker.log", settings.drain_s + 5)
        gateway = CommandServer("gateway", self.environment, folder / "gateway.log", grace_s=15)
        self.parts = [
            Part("redis", redis, ("127.0.0.1", redis.port)),
            Part("triton", triton, ("127.0.0.1", triton.grpc_port)),
            Part("worker", worker, None),
            Part("gateway", gateway, (settings.host, port)),
        ]
        self.launched: list[Part] = []
        self.launching = self.interrupted = False

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.interrupt)
        try:
            for part in self.parts:
                with self.whole():
                    part.server.launch()
                    self.launched.append(part)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True
        if not self.launching:
            raise KeyboardInterrupt

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Launch inside: an interrupt waits until the child is on record, or nobody would end it."""
        self.launching = True
        try:
            yield
        finally:
            self.launching = False
        self.heed()

    def heed(self) -> None:
        """Raise KeyboardInterrupt if one waited, or was lost: what is raised in a callback or finaliser is ignored."""
        if self.interrupted:
            raise KeyboardInterrupt

    def stop(self) -> None:
        """End every part, last started first. A second Ctrl-C does not cut this short: each wait is bounded."""
        previous = [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)]
        while self.launched:
            self.launched.pop().server.stop()
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), previous, strict=True):
            signal.signal(number, handler)

    def wait_ready(self, on_wait: Callable[[Sequence[str]], object] = lambda _: None) -> float:
        """Seconds until ready; ``on_wait`` is told at each look which parts are not up.

        The worker is among them until all is ready: it has no port that we know.
        Raises SetupError with the end of the guilty log when a part dies or time is up.
        """
        began, waiting = time.monotonic(), self.parts
        while obstacle := probe(f"{self.url}/readyz"):
            self.heed()
            for part in self.parts:
                if part.server.process.poll() is not None:
                    raise SetupError(
                        f"{part.name} did not start; the end of {part.server.log}:\n{tail(part.server.log)}"
                    )
            if time.monotonic() - began > READY_LIMIT_S:
                raise SetupError(f"not ready after {READY_LIMIT_S:.0f} s: {obstacle}")
            on_wait([part.name for part in waiting])
            waiting = [part for part in waiting if not part.listens()]
            time.sleep(POLL_S)
        return time.monotonic() - began

    def watch(self, until: Callable[[], bool] = lambda: False) -> None:
        """Keep every part alive until interrupted."""
        while not until():
            with self.whole():
                for part in self.parts:
                    part.check()
            time.sleep(POLL_S)
