"""Commands as processes of their own, and what they say when they cannot work."""

import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def vqd(*arguments: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-m", "service.cli", *map(str, arguments)], cwd, variables)


def run(command: list[str], cwd: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, timeout=240, check=False)
    # Decoded here: text=True would turn the carriage returns of a progress bar into new lines.
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def on_terminal(*arguments: str | Path, cwd: Path, **variables: str) -> str:
    """All that ``vqd`` writes to a terminal, with its carriage returns. It must succeed."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (24, 100))
    command = [sys.executable, "-m", "service.cli", *map(str, arguments)]
    process = subprocess.Popen(command, cwd=cwd, env={**os.environ, **variables}, stdin=its, stdout=its, stderr=its)
    os.close(its)
    shown = b""
    with suppress(OSError), open(ours, "rb", buffering=0) as terminal:  # reading from a terminal that nobody has open
        while piece := terminal.read(4096):
            shown += piece
    assert process.wait(60) == 0, shown
    return shown.decode()


@contextmanager
def started(*arguments: str | Path, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """Python with these arguments, while the test goes on; killed at the latest when the block is left.

    It heeds interrupts, also where the tests run in the background of a shell, which lets all in it ignore them.
    """
    command = ["env", "--default-signal=INT", sys.executable, *map(str, arguments)]
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """What a command that failed said, without what a progress bar left on the line."""
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.removesuffix("\n").split("\n")
    message = line.rpartition("\r")[2]
    assert message.startswith("vqd: ")
    return message


def steady_memory() -> dict[str, str]:
    """The environment of a process whose memory is measured: the C library gives back at once what is freed, and does
    not keep some of it by how its threads happened to run.
    """
    return {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
