"""Whether a group of processes gets anywhere, however long it takes."""

import os
import time
from pathlib import Path

LOOK_S = 1.0
CPU_SHARE = 0.2
"""Of one core: less than this is what an idle server takes."""
READ_BYTES = 2**20
READY_LIMIT_S = 120.0
TICKS = os.sysconf("SC_CLK_TCK")


class Motion:
    """Of the processes of ``group``: they move while they compute or read."""

    def __init__(self, group: int) -> None:
        self.group = group
        self.seconds, self.bytes = self.spent()
        self.looked_s = self.moved_s = time.monotonic()

    def still_s(self) -> float:
        """How long nothing has moved; looks once a second."""
        now = time.monotonic()
        if (elapsed := now - self.looked_s) >= LOOK_S:
            seconds, size = self.spent()
            if seconds - self.seconds > CPU_SHARE * elapsed or size - self.bytes > READ_BYTES * elapsed:
                self.moved_s = now
            self.seconds, self.bytes, self.looked_s = seconds, size, now
        return now - self.moved_s

    def spent(self) -> tuple[float, int]:
        """(processor seconds, bytes read) of all processes that are there now."""
        seconds, size = 0.0, 0
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(") ")[2].split()
                if int(fields[2]) == self.group:
                    seconds += (int(fields[11]) + int(fields[12])) / TICKS
                    size += int((folder / "io").read_text().split()[1])
            except (OSError, IndexError):  # it has ended
                continue
        return seconds, size


class StartLimit:
    """With models that load as long as they move; with all else for as long as that took, and ``READY_LIMIT_S``."""

    def __init__(self, *motions: Motion) -> None:
        self.motions = motions
        self.began_s = self.loaded_s = time.monotonic()

    def is_over(self, loading: bool) -> bool:
        now = time.monotonic()
        if loading:
            self.loaded_s = now
            return min(motion.still_s() for motion in self.motions) > READY_LIMIT_S
        return now - self.loaded_s > READY_LIMIT_S + self.loaded_s - self.began_s
