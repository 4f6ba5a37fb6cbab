"""The worker's view of Triton: the three models with retries, batch limits, clocks and counters."""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import numpy as np
from prometheus_client import Histogram

from service.errors import InferenceFailed, TritonUnavailable
from service.metrics import WorkerMetrics
from service.triton.client import TritonClient, with_retries
from service.triton.contract import Float16, Int32, StepBatch, StepOutput, UInt8

T = TypeVar("T")


class Inference:
    """Raises TritonUnavailable after the retries, InferenceFailed at once. ``last_success`` is a monotonic time."""

    def __init__(self, triton: TritonClient, metrics: WorkerMetrics, max_batch: int) -> None:
        self.triton, self.metrics, self.max_batch = triton, metrics, max_batch
        self.last_success = 0.0

    async def timed(self, histogram: Histogram, call: Callable[[], Awaitable[T]]) -> tuple[T, float]:
        """(answer, seconds) of a call, counted."""

        async def counted() -> T:
            try:
                return await call()
            except TritonUnavailable:
                self.metrics.triton_errors.labels("unavailable").inc()
                raise
            except InferenceFailed:
                self.metrics.triton_errors.labels("invalid").inc()
                raise

        began = time.monotonic()
        answer = await with_retries(counted)
        self.last_success = time.monotonic()
        seconds = self.last_success - began
        histogram.observe(seconds)
        self.metrics.model_seconds.inc(seconds)
        return answer, seconds

    async def encode(self, ids: Int32, mask: Int32) -> tuple[Float16, float]:
        """[B, S] ids and mask → [B, S, D] states, in as many calls as it takes."""
        parts, total = [], 0.0
        for i in range(0, len(ids), self.max_batch):
            chunk = slice(i, i + self.max_batch)
            call = partial(self.triton.encode, ids[chunk], mask[chunk])
            part, seconds = await self.timed(self.metrics.encode_seconds, call)
            parts.append(part)
            total += seconds
        return np.concatenate(parts), total

    async def step(self, batch: StepBatch) -> tuple[StepOutput, float]:
        self.metrics.rows_per_call.observe(len(batch.tokens))
        answer = await self.timed(self.metrics.step_seconds, lambda: self.triton.step(batch))
        self.metrics.evaluations.inc(batch.timestep.size)
        return answer

    async def decode(self, tokens: Int32) -> tuple[UInt8, float]:
        """At most a batch of complete grids [B, L] → pixels [B, H, W, 3]."""
        return await self.timed(self.metrics.decode_seconds, lambda: self.triton.decode(tokens))
