"""The local Triton: the tritonserver that the nvidia-pytriton wheel carries, with its python backend.

For one machine only: it binds loopback, as release 2.51 is behind on security fixes.
"""

import re
import signal
import subprocess
from pathlib import Path

from service.errors import SetupError
from service.local.links import Links
from service.local.motion import Motion
from service.local.processes import LocalServer, end, spawn
from service.local.shared_memory import (
    prefix_of,
    private_folder,
    remove,
    remove_shared_memory,
    require_shared_memory,
    sweep_shared_memory,
)
from service.local.stubs import Stubs
from service.local.wheel import TritonInstall, find_triton
from service.sockets import free_port
from service.triton.client import serves

SAID = re.compile(rb'model\.py:\d+\] "?(\w+: [^"\n]+)')
"""What the backend of a model says of itself in Triton's log."""
RECENT = 2**14
STILL_S = 10.0


class TritonServer(LocalServer):
    """A tritonserver on loopback that serves an exported ``repository``; its log goes to ``folder``."""

    name = "triton"

    def __init__(
        self, repository: Path, folder: Path, grpc_port: int = 0, metrics_port: int = 0, limit_s: float = 120.0
    ) -> None:
        self.repository, self.limit_s = repository, limit_s
        self.grpc_port, self.metrics_port = grpc_port or free_port(), metrics_port or free_port()
        self.grpc_url = f"127.0.0.1:{self.grpc_port}"
        self.metrics_url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        self.log = folder / "triton.log"
        self.shared_memory = prefix_of(self.grpc_port)
        self.guard: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        if self.guard:
            self.stop()  # stubs of a server that died may still wait for it
        install = find_triton()
        if not (self.repository / "vqd.json").exists():
            raise SetupError(f"{self.repository} holds no exported model: `vqd export --repository {self.repository}`")
        sweep_shared_memory()
        require_shared_memory()
        self.folder = private_folder()
        links = Links(self.folder)
        command: list[str | Path] = [install.binary, *self.options(links, install)]
        # It works in a folder of its own: the stub imports what lies there before all else.
        self.process = spawn(command, self.log, install.environment(links), signal.SIGKILL, self.folder)
        self.guard = guard_group(self.process.pid)
        self.stubs = Stubs(self.process.pid, len([*self.repository.glob("*/config.pbtxt")]))
        self.motion = Motion(self.process.pid)

    def answers(self) -> bool:
        """Whether each model answers a real inference."""
        return serves(self.grpc_url, self.limit_s)

    def progress(self) -> str:
        """What a model said last of its loading; nothing when none has said anything."""
        with self.log.open("rb") as log:
            log.seek(max(self.process.begins, log.seek(0, 2) - RECENT))
            said = SAID.findall(log.read())
        return said[-1].decode() if said else ""

    def moves(self) -> bool:
        """Whether its processes compute something now."""
        return self.motion.still_s() < STILL_S

    def trouble(self) -> str | None:
        return super().trouble() or self.stubs.loss()

    def options(self, links: Links, install: TritonInstall) -> list[str]:
        options = {
            "model-repository": links.plain(self.repository),
            "backend-directory": lay_out_backend(links, install),
            "allow-http": "false",
            "grpc-address": "127.0.0.1",
            "grpc-port": self.grpc_port,
            "metrics-address": "127.0.0.1",
            "metrics-port": self.metrics_port,
            "allow-gpu-metrics": "false",
            "pinned-memory-pool-byte-size": 0,
        }
        backend = {
            "shm-region-prefix-name": self.shared_memory,
            "shm-default-byte-size": 2**20,
            "shm-growth-byte-size": 2**20,
            "stub-timeout-seconds": int(self.limit_s),
        }
        return [
            "--disable-auto-complete-config",  # configs are complete; completing them would start every stub twice
            *(f"--{name}={value}" for name, value in options.items()),
            *(f"--backend-config=python,{name}={value}" for name, value in backend.items()),
        ]

    def stop(self) -> None:
        """Kill at once: there is no state to save, and Triton's own way out takes seconds or, with calls, hangs."""
        if self.guard:
            self.guard.kill()
            self.guard.communicate()
            self.guard = None
        end(self.process, grace_s=0)
        remove_shared_memory(self.shared_memory)
        remove(self.folder)


def lay_out_backend(links: Links, install: TritonInstall) -> Path:
    """The backend wants the stub of our Python beside its library; site-packages stays as it is."""
    for part in (*install.backend.glob("*.so"), *install.backend.glob("*.py"), install.stub):
        links.link(f"backends/python/{part.name}", part)
    return links.folder / "backends"


def guard_group(group: int) -> subprocess.Popen[bytes]:
    """Kill a process group when we die: a stub that is in a call when its server dies would wait for it for ever.

    The guard reads from a pipe that only we hold, so it wakes even when we are killed by SIGKILL.
    """
    command = ["/bin/sh", "-c", 'read -r _; kill -s KILL -- "-$0"', str(group)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0)
