"""What a worker knows of its own state, and says of it."""

import asyncio
import logging
import time
from collections.abc import Callable

from service.engine.inference import Inference
from service.errors import RedisUnavailable, VqdError
from service.messages import ModelInfo, WorkerInfo, WorkerState
from service.telemetry.metrics import WorkerMetrics
from service.worker.ledger import Ledger

log = logging.getLogger(__name__)

REGISTER_S = 1.0
CHECK_S = 5.0
UNCHECKED = "Triton is not checked yet"


class Health:
    """``trouble``: why it takes no work, None when it does; ``stopping`` is set when it is to drain."""

    def __init__(
        self,
        worker_id: str,
        model: ModelInfo,
        inference: Inference,
        ledger: Ledger,
        metrics: WorkerMetrics,
        on_ready: Callable[[], None],
    ) -> None:
        self.worker_id, self.model, self.inference, self.ledger = worker_id, model, inference, ledger
        self.metrics, self.on_ready = metrics, on_ready
        self.trouble: str | None = UNCHECKED
        self.stopping = asyncio.Event()

    @property
    def running(self) -> bool:
        return self.trouble is None and not self.stopping.is_set()

    @property
    def state(self) -> WorkerState:
        return "draining" if self.stopping.is_set() else "unready" if self.trouble else "ready"

    async def register(self) -> None:
        """Say every second that we live, and whether our Triton answers a real inference."""
        while True:
            if time.monotonic() - self.inference.last_success > CHECK_S or self.trouble:
                await self.check()
            info = WorkerInfo(id=self.worker_id, model=self.model, state=self.state, detail=self.trouble)
            try:
                await self.ledger.queue.register(info, ttl_ms=int(5000 * REGISTER_S))
            except RedisUnavailable as error:
                await self.ledger.wait_for_redis(error)
            await asyncio.sleep(REGISTER_S)

    async def check(self) -> None:
        try:
            await self.inference.check()
        except VqdError as error:
            self.mark_unready(str(error))
        else:
            if self.trouble:
                log.info("ready: Triton answers")
            self.trouble = None
            self.metrics.triton_up.set(1)
            self.on_ready()

    def mark_unready(self, reason: str) -> None:
        if self.trouble in (None, UNCHECKED):
            log.error("not ready: %s", reason)
        self.trouble = reason
        self.metrics.triton_up.set(0)
