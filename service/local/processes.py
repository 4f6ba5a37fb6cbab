"""Start local child processes that never outlive us, and end them."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from service.errors import SetupError
from service.folders import unwritable
from service.local.excerpts import excerpt

OURSELVES = (sys.executable, "-P", "-m", "service.cli")
"""How a command of ours begins as a process. -P: the working folder may hold somebody else's ``service``."""
PR_SET_PDEATHSIG = 1
KILL_LIMIT_S = 5.0
"""For a killed process group to go; longer only where process 1 does not reap."""
libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int, last_signal: int = signal.SIGTERM) -> Callable[[], None]:
    """For ``preexec_fn``: have the kernel signal the child when the thread that started it is gone."""

    def arm() -> None:
        libc.prctl(PR_SET_PDEATHSIG, last_signal)
        if os.getppid() != parent:  # the parent died before the line above
            os._exit(1)

    return arm


class Child(subprocess.Popen[bytes]):
    """A process that writes to the file ``log``, from byte ``begins`` on."""

    log: Path
    begins: int

    def excerpt(self) -> str:
        """For an error message: what it said."""
        return excerpt(self.log, self.begins)


def spawn(
    command: Sequence[str | Path],
    log: Path,
    env: Mapping[str, str] | None = None,
    last_signal: int = signal.SIGTERM,
    folder: Path | None = None,
) -> Child:
    """Start ``command`` in a process group of its own, output appended to ``log``; it ends when we do.

    ``last_signal`` is what it gets when we are killed; ``folder`` is where it works, by default where we do. Raises
    SetupError when the log cannot be written.
    """
    with open_log(log) as output:
        begins = output.tell()
        child = Child(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **(env or {})},
            process_group=0,
            preexec_fn=die_with_parent(os.getpid(), last_signal),  # only the child can ask for it
        )
    child.log, child.begins = log, begins
    return child


def open_log(log: Path) -> BinaryIO:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("ab")
    except OSError as error:
        raise unwritable(log, error) from None


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


class Part(ABC):
    """A child that can be launched again, as what it was."""

    name: str
    log: Path
    process: Child

    @abstractmethod
    def launch(self) -> None:
        """Start the process, and return before it works. Raises SetupError when something is missing."""

    @abstractmethod
    def stop(self) -> None:
        """End the process and clear up after it."""

    def trouble(self) -> str | None:
        """Why it cannot go on, in words that follow its name."""
        status = self.process.poll()
        return None if status is None else f"ended with status {status}"

    def explanation(self) -> str:
        """What it said: follows a sentence about it."""
        return self.process.excerpt()


class LocalServer(Part):
    """A server on this machine; as a context manager it answers inside and is gone outside."""

    limit_s: float
    """How long it may take to answer."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it does its work now."""

    def start(self) -> None:
        """Launch and wait until it answers. Raises SetupError with the cause, and nothing runs, otherwise."""
        self.launch()
        try:
            self.wait()
        except BaseException:
            self.stop()
            raise

    def wait(self) -> None:
        until = time.monotonic() + self.limit_s
        while not self.answers():
            late = f"did not get ready within {self.limit_s:.0f} s" if time.monotonic() > until else None
            if trouble := self.trouble() or late:
                raise SetupError(f"{self.name} {trouble}{self.explanation()}")
            time.sleep(0.02)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
