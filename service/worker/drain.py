"""The end of a worker: what is in flight ends, everything else is handed over."""

import asyncio
import logging
import time

from service.errors import RedisUnavailable
from service.worker.admission import Admission
from service.worker.health import Registration

log = logging.getLogger(__name__)


PATIENCE_S = 1.0
"""Shortest time that is left to what is in flight."""


class Drained(Exception):
    """Ends the worker's TaskGroup when everything is handed over; not an error."""


class Drain:
    """Takes ``limit_s`` at most: without Redis or Triton nobody may come to an end, and leases move jobs anyway."""

    def __init__(self, admission: Admission, registration: Registration, limit_s: float) -> None:
        self.admission, self.registration, self.limit_s = admission, registration, limit_s

    async def run(self) -> None:
        """Raises Drained, some time after the worker was told to stop."""
        await self.registration.health.stopping.wait()
        began = time.monotonic()
        try:
            async with asyncio.timeout(self.limit_s):
                await self.hand_over()
                await self.registration.end()
        except (TimeoutError, RedisUnavailable) as error:
            log.warning("not everything was handed over: %s", error or "no time left")
        log.info("drained in %.2f s", time.monotonic() - began)
        raise Drained

    async def hand_over(self) -> None:
        """Let reads, calls, decodes and uploads in flight end, if they do soon, and give every job back.

        The epoch fences what comes later of a call that is left behind.
        """
        stepper = self.admission.stepper
        try:
            async with asyncio.timeout(self.patience_s()), self.admission.lock, stepper.decoder.lock:
                await stepper.settle()
                await stepper.decoder.uploads.settle()
        except TimeoutError:
            log.warning("what is under way takes too long: it is left behind")
        await self.admission.jobs.release_all()

    def patience_s(self) -> float:
        """Twice what the calls in flight should take."""
        expected_s = self.admission.stepper.scheduler.under_way_s
        return min(self.limit_s / 2, max(PATIENCE_S, 2 * expected_s))
