"""A command that is told to end leaves as after Ctrl-C: its jobs are cancelled, its half files removed."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

ENDINGS = (signal.SIGTERM, signal.SIGHUP)
"""What whoever stops a process sends, and what a terminal does that is closed."""
AGAIN_S = 0.1
"""What is raised in a callback or finaliser is ignored; so it is raised once more, unless the command is leaving."""


@contextmanager
def endings_unwind() -> Iterator[None]:
    """Inside, ENDINGS raise SystemExit with the status that a shell gives them. What is ignored (nohup) stays so.

    They often come twice, to a process and to its group: the second one does not cut short what the first began. A
    command that ends at SIGTERM in its own way does so at SIGHUP, too.
    """
    heard = []

    def hear(number: int, _: object) -> None:
        heard.append(number)
        if signal.getsignal(signal.SIGTERM) is not hear:
            signal.raise_signal(signal.SIGTERM)
        elif not isinstance(sys.exception(), (SystemExit, KeyboardInterrupt)):
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
            sys.exit(128 + heard[0])

    ours = [ending for ending in ENDINGS if signal.getsignal(ending) is signal.SIG_DFL]
    for number in (*ours, signal.SIGALRM):
        signal.signal(number, hear)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        for number in ours:
            signal.signal(number, signal.SIG_IGN if heard else signal.SIG_DFL)
