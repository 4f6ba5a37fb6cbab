"""Commands as processes of their own, and what they say when they cannot work."""

import os
import subprocess
import sys
from pathlib import Path


def vqd(*arguments: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-m", "service.cli", *map(str, arguments)], cwd, variables)


def run(command: list[str], cwd: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, timeout=240, check=False)
    # Decoded here: text=True would turn the carriage returns of a progress bar into new lines.
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """What a command that failed said, without what a progress bar left on the line."""
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.removesuffix("\n").split("\n")
    message = line.rpartition("\r")[2]
    assert message.startswith("vqd: ")
    return message
