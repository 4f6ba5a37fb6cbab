"""Triton's Python processes, one for each model."""

import re
import time
from pathlib import Path

from service.triton.contract import MODELS

LOOK_S = 1.0
COMMAND = re.compile(rb"triton_python_backend_stub.*\0(\w+)_0_0\0", re.DOTALL)
"""Names the model."""


class Stubs:
    """Those of one server. It lives on without one that has died, starts no other, and says that it is ready."""

    def __init__(self, server: int) -> None:
        self.server, self.next_look_s = server, 0.0
        self.seen: dict[int, str] = {}

    def loss(self) -> str | None:
        """That one has ended, in words that follow the server's name; looks once a second."""
        if time.monotonic() < self.next_look_s:
            return None
        self.next_look_s = time.monotonic() + LOOK_S
        if len(self.seen) < len(MODELS):
            self.seen |= self.living()
        gone = [model for pid, model in self.seen.items() if not self.is_parent_of(pid)]
        return f"lost the Python process of {', '.join(gone)}" if gone else None

    def living(self) -> dict[int, str]:
        """Process → model. At the start they come one after the other."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            if self.is_parent_of(int(folder.name)) and (command := COMMAND.search(read(folder / "cmdline"))):
                found[int(folder.name)] = command[1].decode()
        return found

    def is_parent_of(self, pid: int) -> bool:
        """Of a process that lives: one that has ended, and whose end nobody has asked for, does not count."""
        state, _, rest = read(Path(f"/proc/{pid}/stat")).rpartition(b") ")[2].partition(b" ")
        return state not in b"ZX" and int(rest.split()[0]) == self.server


def read(path: Path) -> bytes:
    """Nothing when the process is gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
