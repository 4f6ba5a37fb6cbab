"""What a worker knows of its own state, and says of it."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection

from service.engine.inference import Inference
from service.engine.speed import Speed
from service.errors import InferenceFailed, RedisUnavailable, TritonUnavailable, VqdError
from service.queue.registrations import Registrations
from service.serving import ModelInfo, WorkerInfo, WorkerState
from service.worker.job import HeldJob
from service.worker.jobs import HeldJobs

log = logging.getLogger(__name__)

REGISTER_S = 1.0
CHECK_S, CHECK_SHARE = 5.0, 0.1
"""As often as that, unless it took more than this share of the time."""
UNCHECKED = "Triton is not checked yet"


class Health:
    """``trouble``: why it takes no work, None when it does; ``stopping`` is set when it is to drain.

    ``changed`` is set at each change of these, and cleared by who looks for one. ``on_ready`` are called when Triton
    answers again: there may be work that waited for it.
    """

    def __init__(self, inference: Inference, jobs: HeldJobs) -> None:
        self.inference, self.jobs, self.metrics = inference, jobs, jobs.metrics
        self.trouble: str | None = UNCHECKED
        self.stopping, self.changed = asyncio.Event(), asyncio.Event()
        self.on_ready: list[Callable[[], None]] = []

    @property
    def running(self) -> bool:
        return self.trouble is None and not self.stopping.is_set()

    @property
    def state(self) -> WorkerState:
        return "draining" if self.stopping.is_set() else "unready" if self.trouble else "ready"

    def stop(self) -> None:
        self.stopping.set()
        self.changed.set()

    async def watch(self) -> None:
        """Ask Triton for a real inference whenever it has not answered one for a while, and owes none."""
        while True:
            pause_s = max(CHECK_S, sum(self.inference.pace.row_s.values()) / CHECK_SHARE)
            silent_s = time.monotonic() - self.inference.last_success
            # A call under way has a limit of its own, and a check beside it would make both slow.
            if self.trouble or (silent_s > pause_s and not self.inference.pace.under_way):
                await self.check()
            await asyncio.sleep(REGISTER_S)

    async def check(self) -> None:
        try:
            await self.inference.check()
        except VqdError as error:
            self.mark_unready(str(error))
            return
        if self.trouble:
            log.info("ready: Triton answers")
        self.trouble = None
        self.changed.set()
        self.metrics.triton_up.set(1)
        for call in self.on_ready:
            call()

    def mark_unready(self, reason: str) -> None:
        if self.trouble in (None, UNCHECKED):
            log.error("not ready: %s", reason)
        self.trouble = reason
        self.changed.set()
        self.metrics.triton_up.set(0)

    async def lose_triton(self, error: TritonUnavailable, in_call: Collection[HeldJob]) -> None:
        """Without a Triton nothing is made here: other workers go on with what we hold and have not made yet.

        ``in_call``: the jobs whose inference it was. One of them may be why, and each must show that it is not.
        """
        self.mark_unready(str(error))
        await self.jobs.release_unmade(in_call if error.reached else ())

    async def is_sick(self, error: InferenceFailed, in_call: Collection[HeldJob]) -> bool:
        """Whether Triton answers nonsense to everybody: then all is handed over. If not, ``error`` is the jobs'."""
        try:
            await self.inference.check()
        except VqdError as found:
            await self.lose_triton(TritonUnavailable(f"{error}; and then: {found}", reached=True), in_call)
            return True
        return False


class Registration:
    """Says every second, and at each change, that we live and whether we take work."""

    def __init__(
        self, worker_id: str, info: ModelInfo, health: Health, registrations: Registrations, speed: Speed | None = None
    ) -> None:
        self.worker_id, self.health, self.registrations, self.speed = worker_id, health, registrations, speed
        self.info = info.model_copy(update={"edits": True})

    async def run(self) -> None:
        while True:
            self.health.changed.clear()
            await self.register()
            try:
                async with asyncio.timeout(REGISTER_S):
                    await self.health.changed.wait()
            except TimeoutError:
                pass

    async def register(self) -> None:
        info = WorkerInfo(
            id=self.worker_id,
            model=self.info,
            state=self.health.state,
            detail=self.health.trouble,
            rows=self.health.jobs.rows,
            passes_per_s=self.speed.passes_per_s if self.speed else None,
        )
        try:
            await self.registrations.register(info, ttl_ms=int(5000 * REGISTER_S))
        except RedisUnavailable as error:
            await self.health.jobs.settlement.outage.wait(error)

    async def end(self) -> None:
        """Raises RedisUnavailable."""
        await self.registrations.unregister(self.worker_id)
