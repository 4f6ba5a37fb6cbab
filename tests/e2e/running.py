"""A running service for tests: inside this process's supervisor, or as a ``vqd up`` process of its own."""

import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from integration.gateway_harness import until

from service.local.shared_memory import remove_shared_memory
from service.local.supervisor import Supervisor
from service.settings import Settings
from service.sockets import free_port

READY_S = 120.0
"""Starting takes some seconds on idle cores, and much longer beside other work."""
MARK = "E2E_MARK"


@contextmanager
def supervised(repository: Path, folder: Path) -> Iterator[Supervisor]:
    """A ready service on free ports, the worker's metrics too; its logs and data are in ``folder``."""
    supervisor = Supervisor(Settings(port=0, repository=repository), folder)
    supervisor.environment["VQD_WORKER_METRICS_PORT"] = str(free_port())
    with supervisor:
        supervisor.wait_ready()
        yield supervisor


def marked(mark: str) -> list[int]:
    """Living processes whose environment carries ``mark``: whatever a marked process started, and itself."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={mark}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:  # it ended meanwhile, or is not ours
            continue
    return found


class Up:
    """``vqd up`` with ``options`` as a process; everything it starts is marked, and killed at the latest here."""

    def __init__(
        self,
        folder: Path,
        *options: str | Path,
        program: Sequence[str] = ("-m", "service.cli"),
        cwd: Path | None = None,
        **variables: str,
    ) -> None:
        self.mark, self.folder = secrets.token_hex(8), folder
        folder.mkdir(parents=True, exist_ok=True)
        self.output, self.errors = folder / "stdout", folder / "stderr"
        command = [sys.executable, *program, "up", "--port", "0", "--out", folder / "out", *options]
        with self.output.open("w") as stdout, self.errors.open("w") as stderr:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdout=stdout,
                stderr=stderr,
                cwd=cwd,
                env={**os.environ, MARK: self.mark, **variables},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while left := marked(self.mark):
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            self.process.poll()
        self.process.wait()
        remove_shared_memory(f"vqd[_-]{self.process.pid}[_-]")

    def url(self) -> str:
        """Where it serves, once it is ready."""

        def announced() -> re.Match[str] | None:
            assert self.process.poll() is None, self.errors.read_text()
            return re.search(r"^ready in .* at (\S+) ", self.output.read_text(), re.MULTILINE)

        return str(until(announced, READY_S)[1])

    def pid_of(self, words: str) -> int:
        """The child whose command line has ``words``, or begins with a path that ends in them."""
        for pid in marked(self.mark):
            line = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
            if line[0].endswith(words) or words in line:
                return pid
        raise AssertionError(f"no process {words!r}")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait_gone(self, limit_s: float) -> None:
        """Wait until it and everything that it started is gone."""
        self.process.wait(limit_s)
        until(lambda: not marked(self.mark), limit_s)
