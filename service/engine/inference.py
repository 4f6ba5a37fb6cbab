"""The worker's view of Triton: the served models with turns, retries, batch limits, clocks and counters."""

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
from prometheus_client import Histogram

from service.engine.prompts import Tokenised
from service.engine.states import KnownStates
from service.engine.turns import Turns
from service.errors import InferenceFailed, TritonTimeout, TritonUnavailable
from service.telemetry.metrics import WorkerMetrics
from service.triton.client import TritonClient
from service.triton.contract import IMAGE_DECODER, IMAGE_ENCODER, STEP, Float16, Int32, StepBatch, StepOutput, UInt8
from service.triton.retries import with_retries

T = TypeVar("T")
SHORTEST_LIMIT_S, HANGS_AFTER = 10.0, 20.0
"""A step call may take so many times what it usually takes, and so many seconds in any case."""
SLOW_BUT_WELL = 3.0
"""So many times what it usually takes is never too long, whatever the setting says: a large model is not a lost one."""


def kind_of(error: TritonUnavailable | InferenceFailed) -> str:
    """One of metrics.TRITON_ERRORS."""
    if isinstance(error, InferenceFailed):
        return "invalid"
    return "timeout" if isinstance(error, TritonTimeout) else "unavailable"


@dataclass
class Pace:
    """``row_s``: what the last check took of each model, seconds for one row and one evaluation; ``under_way``: calls
    whose end will tell whether Triton works."""

    row_s: dict[str, float] = field(default_factory=dict)
    under_way: int = 0


class Inference:
    """Raises TritonUnavailable after the retries, InferenceFailed at once. ``last_success`` is a monotonic time."""

    def __init__(
        self, triton: TritonClient, turns: Turns, metrics: WorkerMetrics, max_batch: int, pace: Pace | None = None
    ) -> None:
        self.triton, self.turns, self.metrics, self.max_batch = triton, turns, metrics, max_batch
        self.pace = pace or Pace()
        self.known = KnownStates()
        self.last_success = 0.0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Note what a call comes to: its error by kind, or that Triton answers."""
        try:
            yield
        except (TritonUnavailable, InferenceFailed) as error:
            self.metrics.triton_errors.labels(kind_of(error)).inc()
            raise
        self.last_success = time.monotonic()

    @contextmanager
    def awaited(self) -> Iterator[None]:
        self.pace.under_way += 1
        try:
            yield
        finally:
            self.pace.under_way -= 1

    async def timed(self, histogram: Histogram, call: Callable[[], Awaitable[T]]) -> tuple[T, float]:
        """(answer, seconds) of the try that succeeds, counted."""

        async def one_try() -> tuple[T, float]:
            began = time.monotonic()
            with self.counted(), self.metrics.in_model, self.awaited():
                answer = await call()
            seconds = time.monotonic() - began
            histogram.observe(seconds)
            return answer, seconds

        return await with_retries(one_try)

    async def check(self) -> None:
        """A real inference, for whoever wants to know whether Triton works. Raises what it raises."""
        slowest_s = max(self.pace.row_s.values(), default=0)
        with self.counted():
            self.pace.row_s = await self.triton.check(self.at_most(slowest_s))

    def at_most(self, expected_s: float) -> float:
        """The longest wait for a call that should take so long."""
        return max(self.triton.timeout_s, SLOW_BUT_WELL * expected_s)

    async def encode(self, texts: Sequence[Tokenised]) -> tuple[list[Float16], float]:
        """States [S, D] of each, in as many calls as it takes. What was asked for lately is not asked for again."""
        found = {text.key: states for text in texts if (states := self.known.get(text)) is not None}
        unknown = {text.key: text for text in texts if text.key not in found}
        answers, total = await self.encode_all([*unknown.values()])
        for text, states in zip(unknown.values(), answers, strict=True):
            found[text.key] = states
            self.known.keep(text, states)
        return [found[text.key] for text in texts], total

    async def encode_all(self, texts: Sequence[Tokenised]) -> tuple[list[Float16], float]:
        states: list[Float16] = []
        total = 0.0
        for i in range(0, len(texts), self.max_batch):
            chunk = texts[i : i + self.max_batch]
            ids, mask = np.stack([text.ids for text in chunk]), np.stack([text.mask for text in chunk])
            async with self.turns.shared():
                part, seconds = await self.timed(self.metrics.encode_seconds, partial(self.triton.encode, ids, mask))
            states.extend(part)
            total += seconds
        return states, total

    async def read(self, pictures: Sequence[UInt8]) -> tuple[list[Int32], float]:
        """Pictures [H, W, 3] as grids [L], in as many calls as it takes."""
        grids: list[Int32] = []
        total = 0.0
        for i in range(0, len(pictures), self.max_batch):
            chunk = np.stack(pictures[i : i + self.max_batch])
            limit_s = self.at_most(len(chunk) * self.pace.row_s.get(IMAGE_ENCODER.name, 0))
            async with self.turns.shared():
                part, seconds = await self.timed(
                    self.metrics.read_seconds, partial(self.triton.encode_image, chunk, limit_s)
                )
            grids.extend(part)
            total += seconds
        return grids, total

    async def step(self, batch: StepBatch, expected_s: float | None = None) -> tuple[StepOutput, float]:
        """The caller has the turn: it chose the batch when it got it.

        A Triton that takes many times ``expected_s`` hangs, and is not waited for as long as one that is only slow.
        """
        rows, evaluations = batch.timestep.shape
        limit_s = self.at_most(expected_s or rows * evaluations * self.pace.row_s.get(STEP, 0))
        if expected_s:
            limit_s = min(limit_s, max(SHORTEST_LIMIT_S, HANGS_AFTER * expected_s))
        self.metrics.rows_per_call.observe(rows)
        answer = await self.timed(self.metrics.step_seconds, lambda: self.triton.step(batch, limit_s))
        self.metrics.evaluations.inc(batch.timestep.size)
        return answer

    async def decode(self, tokens: Int32) -> tuple[UInt8, float]:
        """At most a batch of complete grids [B, L] → pixels [B, H, W, 3]."""
        limit_s = self.at_most(len(tokens) * self.pace.row_s.get(IMAGE_DECODER.name, 0))
        async with self.turns.shared():
            return await self.timed(self.metrics.decode_seconds, lambda: self.triton.decode(tokens, limit_s))

    async def preview(self, tokens: Int32) -> tuple[UInt8, float]:
        """``decode`` of what is in progress: without a turn, so that no step waits for it, and tried once."""
        limit_s = max(SHORTEST_LIMIT_S, SLOW_BUT_WELL * len(tokens) * self.pace.row_s.get(IMAGE_DECODER.name, 0))
        async with self.turns.beside:
            began = time.monotonic()
            with self.counted(), self.awaited():
                pixels = await self.triton.decode(tokens, limit_s)
        return pixels, time.monotonic() - began
