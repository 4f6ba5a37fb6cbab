"""One served model on one machine: its Triton and its worker, each kept at its work."""

from pathlib import Path

from service.local.parts import CommandPart, Kept
from service.local.silence import Silence
from service.local.triton import TritonServer
from service.settings import Settings
from service.sockets import free_port, url_of


class ServedModel:
    """``environment``: of the worker. ``suffix``: set where there are several models; tells their parts apart.

    ``ready_url``: answers 200 when it can draw.
    """

    def __init__(
        self,
        settings: Settings,
        repository: Path,
        folder: Path,
        environment: dict[str, str],
        ready_url: str,
        suffix: str = "",
    ) -> None:
        self.server = TritonServer(repository, folder / f"triton{suffix}")
        self.server.name += suffix
        environment |= {"VQD_TRITON_URL": self.server.grpc_url, "VQD_REPOSITORY": str(repository)}
        self.ready_url = ready_url
        if suffix:  # the gateway is ready when one of several models is, so each worker is asked for itself
            environment["VQD_WORKER_METRICS_PORT"] = str(port := free_port())
            self.ready_url = f"{url_of(settings.host, port)}/readyz"
        worker = CommandPart("worker", environment, folder / f"worker{suffix}.log", settings.drain_s + 5, suffix)
        self.triton, self.worker = Kept(self.server, ("127.0.0.1", self.server.grpc_port)), Kept(worker, None)
        asked = folder / f"triton{suffix}" / "asked.log"
        self.silence = Silence(self.ready_url, self.server.grpc_url, self.triton.listens, asked, self.server.moves)
