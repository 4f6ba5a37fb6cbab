"""The local Triton: the tritonserver that the nvidia-pytriton wheel carries, with its python backend.

For one machine only: it binds loopback, as release 2.51 is behind on security fixes.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from service.errors import SetupError
from service.local.processes import LocalServer, end, spawn
from service.sockets import free_port
from service.triton.client import serves

SHARED_MEMORY = Path("/dev/shm")
INSTALL_HINT = "`pip install 'vqd[local]'`"


@dataclass(frozen=True)
class TritonInstall:
    """Where the wheel's parts are, and what its processes need in their environment."""

    binary: Path
    backend: Path
    stub: Path
    environment: dict[str, str]


def find_triton() -> TritonInstall:
    """Raises SetupError when a part is missing."""
    root = package_folder("pytriton") / "tritonserver"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    install = TritonInstall(
        binary=root / "bin/tritonserver",
        backend=root / "backends/python",
        stub=root / "python_backend_stubs" / python / "triton_python_backend_stub",
        environment=stub_environment(root.parent.parent, package_folder("torch").parent),
    )
    for path in (install.binary, install.backend / "libtriton_python.so", install.stub):
        if not path.exists():
            raise SetupError(f"the nvidia-pytriton wheel has no {path}; Python {python} may be unsupported by it")
    missing = missing_libraries(install)
    if missing:
        hint = f"for libpython: `apt install libpython{python}`"
        raise SetupError(f"Triton's Python stub needs {', '.join(missing)}; {hint}")
    return install


def package_folder(name: str) -> Path:
    """Found without importing it."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SetupError(f"the package {name!r} is not installed: {INSTALL_HINT}")
    return Path(spec.submodule_search_locations[0])


def stub_environment(wheel: Path, torch: Path) -> dict[str, str]:
    """The stub embeds libpython: of our virtual environment it knows only what is said here.

    Our own Python's libpython comes before the system's, where there is a shared one.
    """
    libraries = [wheel / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")]
    return {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys([str(torch), str(wheel)])),
        "LD_LIBRARY_PATH": os.pathsep.join(str(folder) for folder in libraries if folder),
    }


def missing_libraries(install: TritonInstall) -> list[str]:
    """Shared libraries of the stub that the loader does not find; [] where there is no ldd to ask."""
    ldd = shutil.which("ldd")
    if ldd is None:
        return []
    environment = {**os.environ, **install.environment}
    output = subprocess.run([ldd, install.stub], env=environment, capture_output=True, text=True, check=False).stdout
    return re.findall(r"(\S+) => not found", output)


class TritonServer(LocalServer):
    """A tritonserver on loopback that serves an exported ``repository``; log and backend files go to ``folder``."""

    name = "tritonserver"

    def __init__(
        self, repository: Path, folder: Path, grpc_port: int = 0, metrics_port: int = 0, limit_s: float = 120.0
    ) -> None:
        self.repository, self.folder, self.limit_s = repository, folder, limit_s
        self.grpc_port, self.metrics_port = grpc_port or free_port(), metrics_port or free_port()
        self.grpc_url = f"127.0.0.1:{self.grpc_port}"
        self.metrics_url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        self.log = folder / "triton.log"
        self.shared_memory = f"vqd_{os.getpid()}_{self.grpc_port}_"
        self.guard: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        if self.guard:
            self.stop()  # stubs of a server that died may still wait for it
        install = find_triton()
        if not (self.repository / "vqd.json").exists():
            raise SetupError(f"{self.repository} holds no exported model: `vqd export --repository {self.repository}`")
        sweep_shared_memory()
        self.lay_out_backend(install)
        command: list[str | Path] = [install.binary, *self.options()]
        self.process = spawn(command, self.log, install.environment, last_signal=signal.SIGKILL)
        self.guard = guard_group(self.process.pid)

    def answers(self) -> bool:
        """Whether each model answers a real inference."""
        return serves(self.grpc_url, self.limit_s)

    def options(self) -> list[str]:
        options = {
            "model-repository": self.repository,
            "backend-directory": self.folder / "backends",
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

    def lay_out_backend(self, install: TritonInstall) -> None:
        """The backend wants the stub of our Python beside its library; site-packages stays as it is."""
        folder = self.folder / "backends/python"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for part in (*install.backend.glob("*.so"), *install.backend.glob("*.py"), install.stub):
            (folder / part.name).symlink_to(part)

    def stop(self) -> None:
        """Kill at once: there is no state to save, and Triton's own way out takes seconds or, with calls, hangs."""
        if self.guard:
            self.guard.kill()
            self.guard.communicate()
            self.guard = None
        end(self.process, grace_s=0)
        remove_shared_memory(self.shared_memory)


def guard_group(group: int) -> subprocess.Popen[bytes]:
    """Kill a process group when we die: a stub that is in a call when its server dies would wait for it for ever.

    The guard reads from a pipe that only we hold, so it wakes even when we are killed by SIGKILL.
    """
    command = ["sh", "-c", 'read -r _; kill -s KILL -- "-$0"', str(group)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0)


def sweep_shared_memory() -> None:
    """Drop what servers left whose owner was killed: it would hold memory until the machine restarts."""
    for path in SHARED_MEMORY.glob("vqd_*_*_*"):
        owner = path.name.split("_")[1]
        if owner.isdigit() and not Path("/proc", owner).exists():
            path.unlink(missing_ok=True)


def remove_shared_memory(prefix: str) -> None:
    for path in SHARED_MEMORY.glob(f"{prefix}*"):
        path.unlink(missing_ok=True)
