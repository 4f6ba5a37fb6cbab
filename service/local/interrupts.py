"""Interrupts that are neither lost nor leave a child behind."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """KeyboardInterrupt at a signal, but not while a child is launched: then it waits until that is on record."""

    def __init__(self) -> None:
        self.launching = self.came = False

    @contextmanager
    def on(self, *numbers: signal.Signals) -> Iterator[None]:
        """Inside, these signals are interrupts; after it they are what they were before."""
        previous = [signal.signal(number, self.hear) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, previous, strict=True):
                signal.signal(number, handler)

    def hear(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        if not self.launching:
            raise KeyboardInterrupt

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Launch inside: an interrupt waits until the child is on record, or nobody would end it."""
        self.launching = True
        try:
            yield
        finally:
            self.launching = False
        self.heed()

    def heed(self) -> None:
        """Raise KeyboardInterrupt if one waited, or was lost: what is raised in a callback or finaliser is ignored."""
        if self.came:
            raise KeyboardInterrupt
