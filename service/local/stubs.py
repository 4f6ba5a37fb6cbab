"""Triton's Python processes, one for each model."""

import re
import time
from pathlib import Path

LOOK_S = 1.0
COMMAND = re.compile(rb"triton_python_backend_stub.*\0(\w+)_0_0\0", re.DOTALL)
"""Names the model."""
ZOMBIE = b"Z"
"""It has ended, and the server has not asked how."""
ENDED = (b"", ZOMBIE, b"X")
SHELLS = (b"sh", b"bash", b"dash")
"""The server runs some commands when it starts, and asks a moment later how they ended."""


class Stubs:
    """Those of one server. It lives on without one that has died, starts no other, and says that it is ready."""

    def __init__(self, server: int, models: int) -> None:
        """``server``: its process. ``models``: how many it serves."""
        self.server, self.models, self.next_look_s = server, models, 0.0
        self.seen: dict[int, str] = {}

    def loss(self) -> str | None:
        """That one has ended, in words that follow the server's name; looks once a second."""
        if time.monotonic() < self.next_look_s:
            return None
        self.next_look_s = time.monotonic() + LOOK_S
        if len(self.seen) < self.models:
            self.seen = self.children() | self.seen  # which keep their names
        gone = [model for pid, model in self.seen.items() if self.state_of(pid) in ENDED]
        return f"lost the Python process of {', '.join(gone)}" if gone else None

    def children(self) -> dict[int, str]:
        """Process → model. At the start they come one after the other, and one may have ended before it was seen."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            pid = int(folder.name)
            if command := COMMAND.search(read(folder / "cmdline")):
                if self.state_of(pid) not in ENDED:
                    found[pid] = command[1].decode()
            elif self.state_of(pid) == ZOMBIE and program_of(pid) not in SHELLS:
                found[pid] = "one of the models"
        return found

    def state_of(self, pid: int) -> bytes:
        """As in /proc; nothing for what is no child of the server."""
        state, _, rest = read(Path(f"/proc/{pid}/stat")).rpartition(b") ")[2].partition(b" ")
        return state if rest and int(rest.split()[0]) == self.server else b""


def program_of(pid: int) -> bytes:
    """Its name, as far as the kernel keeps it; a zombie still has it."""
    return read(Path(f"/proc/{pid}/stat")).partition(b"(")[2].rpartition(b")")[0]


def read(path: Path) -> bytes:
    """Nothing when the process is gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
