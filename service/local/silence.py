"""A Triton that lives and does nothing any more."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from service.local.probe import probe
from service.local.processes import Child, end, spawn

LOOK_S = 5.0
"""As often as a container's health check: the gateway logs each."""
BUSY = 10


class Silence:
    """Found when ``ready_url`` is unwell for ``unready_s`` and Triton gives no answer within ``answer_s``.

    ``listens``: whether Triton has its port open, which it opens when it has loaded its models. ``moves``: whether it
    computes; then it may be in a long call of others, and has ``BUSY`` times as long.
    """

    def __init__(
        self,
        ready_url: str,
        triton: str,
        listens: Callable[[], bool],
        log: Path,
        moves: Callable[[], bool] = lambda: False,
        unready_s: float = 20,
        answer_s: float = 30,
    ) -> None:
        self.ready_url, self.triton, self.listens, self.log, self.moves = ready_url, triton, listens, log, moves
        self.unready_s, self.answer_s = unready_s, answer_s
        self.next_look_s = 0.0
        self.unready_since_s: float | None = None
        self.question: Child | None = None

    def found(self) -> bool:
        """To be asked again and again; returns soon."""
        now = time.monotonic()
        if self.question:
            return self.unanswered(self.question, now)
        if now < self.next_look_s:
            return False
        self.next_look_s = now + LOOK_S
        if probe(self.ready_url) is None or not self.listens():
            self.unready_since_s = None
        elif self.unready_since_s is None:
            self.unready_since_s = now
        elif now - self.unready_since_s > self.unready_s:
            command = [sys.executable, "-P", "-m", "service.local.ask", self.triton, str(BUSY * self.answer_s)]
            self.question, self.asked_s = spawn(command, self.log), now
        return False

    def stop(self) -> None:
        """Leave no question behind."""
        if self.question:
            end(self.question, grace_s=0)

    def unanswered(self, question: Child, now: float) -> bool:
        limit_s = self.answer_s * (BUSY if self.moves() else 1)
        if question.poll() is None and now - self.asked_s < limit_s:
            return False
        self.question = self.unready_since_s = None
        return end(question, grace_s=0) != 0
