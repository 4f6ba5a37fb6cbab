"""The parts of a service on one machine, and how one that fails comes back."""

import logging
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from service.errors import SetupError
from service.local.processes import OURSELVES, Part, end, spawn
from service.sockets import port_answers

log = logging.getLogger(__name__)

RESTARTS, RESTART_WINDOW_S = 5, 60.0
"""A part that fails oftener than this within the window stops everything."""


class CommandPart(Part):
    """One of our own commands (``vqd worker``, ``vqd gateway``) with settings in its environment."""

    def __init__(self, command: str, environment: dict[str, str], log: Path, grace_s: float, suffix: str = "") -> None:
        self.command, self.name = command, command + suffix
        self.environment, self.log, self.grace_s = environment, log, grace_s

    def launch(self) -> None:
        self.process = spawn([*OURSELVES, self.command], self.log, self.environment)

    def stop(self) -> None:
        end(self.process, self.grace_s)


@dataclass
class Kept:
    """A part that is started again when it fails. ``address``: where it listens; None: nowhere that we know."""

    server: Part
    address: tuple[str, int] | None
    failures: deque[float] = field(default_factory=deque)

    @property
    def name(self) -> str:
        return self.server.name

    def listens(self) -> bool:
        return self.address is not None and port_answers(*self.address)

    def check(self) -> None:
        """Raises SetupError when it keeps failing."""
        if trouble := self.server.trouble():
            self.restart(trouble)

    def restart(self, trouble: str) -> None:
        """Start it again, for a reason that follows its name. Raises SetupError when it keeps failing."""
        self.server.stop()  # what is left of its process group and its shared memory
        now = time.monotonic()
        self.failures.append(now)
        while now - self.failures[0] > RESTART_WINDOW_S:
            self.failures.popleft()
        if len(self.failures) > RESTARTS:
            raise SetupError(f"{self.name} keeps failing, it {trouble}{self.server.explanation()}")
        log.warning("%s %s; starting it again", self.name, trouble)
        self.server.launch()
