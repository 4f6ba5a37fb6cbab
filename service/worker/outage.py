"""Redis away: everything waits for it, and says so now and then."""

import asyncio
import logging
import time

from service.errors import RedisUnavailable
from service.telemetry.metrics import WorkerMetrics

log = logging.getLogger(__name__)

PAUSE_S = 0.2
COMPLAIN_S = 5.0
"""Every part of the worker meets a Redis that is away, several times a second; one line in so long is enough."""


class RedisOutage:
    def __init__(self, metrics: WorkerMetrics) -> None:
        self.metrics = metrics
        self.complained_s = float("-inf")

    async def wait(self, error: RedisUnavailable) -> None:
        """Count the error and pause, before the caller tries again."""
        if time.monotonic() - self.complained_s > COMPLAIN_S:
            self.complained_s = time.monotonic()
            log.warning("waiting: %s", error)
        self.metrics.redis_errors.inc()
        await asyncio.sleep(PAUSE_S)
