"""What goes on now, for somebody who waits."""

import sys
import time
from shutil import get_terminal_size
from types import TracebackType
from typing import Self, TextIO


class LiveLine:
    """Where stderr is a terminal, one line that is kept up to date and wiped at the end; elsewhere a line per change.

    ``plain`` gets those lines, by default stdout.
    """

    def __init__(self, plain: TextIO | None = None) -> None:
        self.plain = plain or sys.stdout
        self.terminal = sys.stderr if sys.stderr.isatty() else None
        self.began = time.monotonic()
        self.text = self.drawn = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.draw("")

    def show(self, text: str) -> None:
        """Something else goes on now."""
        if text == self.text:
            return
        self.text = text
        if self.terminal is None:
            print(text, file=self.plain, flush=True)
        self.draw(text)

    def tick(self) -> None:
        """It still does: show how long all has taken so far."""
        self.draw(self.text, f", {time.monotonic() - self.began:.0f} s")

    def draw(self, text: str, ending: str = "") -> None:
        if self.terminal is None:
            return
        line = text[: get_terminal_size().columns - 1 - len(ending)] + ending
        if line != self.drawn:
            print(f"\r{line:<{len(self.drawn)}}", end="" if line else "\r", file=self.terminal, flush=True)
            self.drawn = line
