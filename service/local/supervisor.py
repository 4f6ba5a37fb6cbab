"""The supervisor behind ``vqd up``: Redis, Triton, a worker and the gateway on one machine.

Everything runs on loopback ports of its own. A part that dies is started again; whatever ends the supervisor ends
everything that it started, and nothing else.
"""

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from service.errors import SetupError
from service.local.interrupts import Interrupts
from service.local.motion import StartLimit
from service.local.parts import CommandPart, Kept
from service.local.probe import probe
from service.local.processes import Part
from service.local.redis import RedisServer
from service.local.served import ServedModel
from service.settings import Settings
from service.sockets import free_port, refusal, url_of

POLL_S = 0.1


class Supervisor:
    """A context manager: the whole service inside, nothing outside. Logs and Redis data go to ``folder``."""

    def __init__(self, settings: Settings, folder: Path, repositories: Sequence[Path] = ()) -> None:
        """``repositories``: of several models; without them it is the settings' one."""
        if settings.port and (why := refusal(settings.host, settings.port)):
            raise SetupError(
                f"cannot listen at {settings.host}, port {settings.port}: {why}; VQD_PORT or --port chooses another one"
            )
        port = settings.port or free_port()
        self.url = url_of(settings.host, port)
        redis = RedisServer(folder / "redis")
        self.redis_url = redis.url
        self.environment = {
            "VQD_PORT": str(port),
            "VQD_HOST": settings.host,
            "VQD_REDIS_URL": redis.url,
            "VQD_DURABLE_REPLICAS": "0",  # our Redis has none
            "VQD_LOG_FORMAT": settings.log_format,
        }
        if settings.key_file:
            self.environment["VQD_KEY_FILE"] = str(settings.key_file)
        ready_url = f"{self.url}/readyz"
        if len(repositories) > 1:
            self.models = [
                ServedModel(settings, repository, folder, dict(self.environment), ready_url, f"-{repository.name}")
                for repository in repositories
            ]
        else:
            repository = repositories[0] if repositories else settings.repository
            self.models = [ServedModel(settings, repository, folder, self.environment, ready_url)]
        gateway = CommandPart("gateway", self.environment, folder / "gateway.log", grace_s=15)
        self.parts = [
            Kept(redis, ("127.0.0.1", redis.port)),
            *(model.triton for model in self.models),
            *(model.worker for model in self.models),
            Kept(gateway, (settings.host, port)),
        ]
        self.launched: list[Part] = []
        self.interrupts = Interrupts()

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.interrupts.hear)
        try:
            for kept in self.parts:
                with self.interrupts.whole():
                    kept.server.launch()
                    self.launched.append(kept.server)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End every part, last started first. A second Ctrl-C does not cut this short: each wait is bounded."""
        previous = [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)]
        for model in self.models:
            model.silence.stop()
        while self.launched:
            self.launched.pop().stop()
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), previous, strict=True):
            signal.signal(number, handler)

    def wait_ready(self, on_wait: Callable[[Sequence[str], str], object] = lambda _, __: None) -> float:
        """Seconds until ready; ``on_wait`` is told at each look which parts are not up, and what a model does.

        The worker is among them until all is ready: it has no port that we know. Models may take as long as they get
        anywhere. Raises SetupError with the cause from the guilty log when a part fails or time is up.
        """
        began, waiting = time.monotonic(), self.parts
        limit = StartLimit(*(model.server.motion for model in self.models))
        while obstacle := self.obstacle():
            self.interrupts.heed()
            for kept in self.parts:
                if trouble := kept.server.trouble():
                    raise SetupError(f"{kept.name} did not start, it {trouble}{kept.server.explanation()}")
            loading = [model for model in self.models if model.triton in waiting]
            if limit.is_over(bool(loading)):
                slow, waited_s = waiting[0], time.monotonic() - began
                raise SetupError(
                    f"not ready after {waited_s:.0f} s: {obstacle}; {slow.name}{slow.server.explanation()}"
                )
            on_wait([kept.name for kept in waiting], loading[0].server.progress() if loading else "")
            waiting = [kept for kept in waiting if not kept.listens()]
            time.sleep(POLL_S)
        return time.monotonic() - began

    def obstacle(self) -> str | None:
        """Why some model could not draw now."""
        asked = dict.fromkeys([f"{self.url}/readyz", *(model.ready_url for model in self.models)])
        return next(filter(None, map(probe, asked)), None)

    def watch(self, until: Callable[[], bool] = lambda: False) -> None:
        """Keep every part at its work until interrupted."""
        while not until():
            with self.interrupts.whole():
                for kept in self.parts:
                    kept.check()
            for model in self.models:
                if model.silence.found():
                    with self.interrupts.whole():
                        model.triton.restart("gives no answer")
            time.sleep(POLL_S)
