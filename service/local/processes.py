"""Start local child processes that never outlive us, and end them."""

import ctypes
import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from service.errors import SetupError

PR_SET_PDEATHSIG = 1
KILL_LIMIT_S = 5.0
"""For a killed process group to go; longer only where process 1 does not reap."""
libc = ctypes.CDLL(None, use_errno=True)


def free_port() -> int:
    """A loopback TCP port that nothing listens on now, and that the kernel keeps for a minute for whoever asks for it.

    After a connection that was ended from its side, no one gets it who asks for any port, or connects from any.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe, socket.create_connection(probe.getsockname()):
        probe.accept()[0].close()
        return int(probe.getsockname()[1])


def port_is_free(host: str, port: int) -> bool:
    """Whether we could listen on host:port now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def die_with_parent(parent: int, last_signal: int = signal.SIGTERM) -> Callable[[], None]:
    """For ``preexec_fn``: have the kernel signal the child when the thread that started it is gone."""

    def arm() -> None:
        libc.prctl(PR_SET_PDEATHSIG, last_signal)
        if os.getppid() != parent:  # the parent died before the line above
            os._exit(1)

    return arm


def spawn(
    command: Sequence[str | Path],
    log: Path,
    env: Mapping[str, str] | None = None,
    last_signal: int = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start ``command`` in a process group of its own, output appended to ``log``; it ends when we do.

    ``last_signal`` is what it gets when we are killed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            process_group=0,
            preexec_fn=die_with_parent(os.getpid(), last_signal),  # noqa: PLW1509  only the child can ask for it
        )


def end(process: subprocess.Popen[bytes], grace_s: float = 10.0) -> int:
    """SIGTERM, wait, then SIGKILL the whole group and wait until it is gone; returns the exit status."""
    if process.poll() is None:
        process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(grace_s)
    until = time.monotonic() + KILL_LIMIT_S
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        while time.monotonic() < until:
            os.killpg(process.pid, 0)
            time.sleep(0.005)
    return process.wait()


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log file, for an error message."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def wait_until(
    ready: Callable[[], bool], process: subprocess.Popen[bytes], name: str, log: Path, limit_s: float
) -> None:
    """Poll until ``ready()``. Raises SetupError with the end of the log when the process dies or the time is up."""
    until = time.monotonic() + limit_s
    while not ready():
        if process.poll() is not None or time.monotonic() > until:
            state = "did not get ready" if process.poll() is None else f"ended with status {process.returncode}"
            raise SetupError(f"{name} {state} within {limit_s:.0f} s; the end of {log}:\n{tail(log)}")
        time.sleep(0.02)


class LocalServer(ABC):
    """A server on this machine; as a context manager it answers inside and is gone outside."""

    name: str
    log: Path
    limit_s: float
    """How long it may take to answer."""
    process: subprocess.Popen[bytes]

    @abstractmethod
    def launch(self) -> None:
        """Start the process; ``answers`` tells when it is ready. Raises SetupError when something is missing."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it does its work now."""

    @abstractmethod
    def stop(self) -> None:
        """End the process and clear up after it."""

    def start(self) -> None:
        """Launch and wait until it answers. Raises SetupError with the end of its log, and nothing runs, otherwise."""
        self.launch()
        try:
            wait_until(self.answers, self.process, self.name, self.log, self.limit_s)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
