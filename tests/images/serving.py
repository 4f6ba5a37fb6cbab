"""A service of containers, and the figures that are measured on it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from engine import Container

FIGURES: dict[str, str] = {}
"""What was measured, for the table at the end."""


@dataclass
class ContainerService:
    url: str
    worker_url: str
    containers: dict[str, Container] = field(default_factory=dict)


def until(condition: Callable[[], bool], limit_s: float, container: Container) -> float:
    """Seconds from the container's start until ``condition()``; fails with its log."""
    while not condition():
        running = container.inspect(".State.Running") == "true"
        assert running, container.logs()
        assert time.monotonic() - container.began < limit_s, container.logs()
        time.sleep(0.05)
    return time.monotonic() - container.began
