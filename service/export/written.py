"""How much of a large file is written, while torch writes it and lets nothing else of its process run.

``python -m service.export.written FILE BYTES WORDS`` tells it on stderr until it is ended.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXPORTING = "exporting: "
"""Begins each line of `vqd export` that says what it does now; `vqd up` reads them in its log."""
WORTH_WATCHING = 2**28
"""Bytes: what is smaller is written within a second."""
LOOK_S = 0.5


@contextmanager
def watched(path: Path, size: int, words: str) -> Iterator[None]:
    """Inside, a file of about ``size`` bytes is written to ``path``: if it is large, say how far that is."""
    path.unlink(missing_ok=True)  # of an export that was interrupted
    if size < WORTH_WATCHING:
        yield
        return
    command = [sys.executable, "-P", "-m", "service.export.written", str(path), str(size), words]
    watcher = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        watcher.kill()
        watcher.wait()
        wipe(len(EXPORTING + words) + 6)


def watch(path: Path, size: int, words: str, pause_s: float = LOOK_S) -> Iterator[str]:
    """What to say, whenever it is something new, as long as the process lives that started us."""
    parent, said = os.getppid(), ""
    while os.getppid() == parent:
        share = path.stat().st_size / size if path.exists() else 0
        if (text := f"{EXPORTING}{words} {min(100 * share, 100):.0f} %") != said:
            yield (said := text)
        time.sleep(pause_s)


def tell(path: Path, size: int, words: str) -> None:
    terminal = sys.stderr.isatty()
    for text in watch(path, size, words):
        print(f"\r{text}" if terminal else text, end="" if terminal else "\n", file=sys.stderr, flush=True)


def wipe(width: int) -> None:
    """What was told on a terminal stands in one line."""
    if sys.stderr.isatty():
        print(f"\r{'':{width}}", end="\r", file=sys.stderr, flush=True)


if __name__ == "__main__":
    tell(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
