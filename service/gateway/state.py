"""What the routes share: one ``Gateway`` per application, handed to them as a dependency."""

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from service.gateway.directory import Directory
from service.queue.figures import Figures
from service.queue.notify import Notifier
from service.queue.store import Store
from service.queue.submissions import Submissions
from service.settings import Settings
from service.telemetry.metrics import GatewayMetrics
from service.telemetry.tracing import Tracer

log = logging.getLogger(__name__)


@dataclass
class Gateway:
    """``stopping`` ends every long answer early; ``failure`` is why a background task died, and the process with it."""

    settings: Settings
    store: Store
    submissions: Submissions
    figures: Figures
    notifier: Notifier
    directory: Directory
    metrics: GatewayMetrics
    tracer: Tracer
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    failure: BaseException | None = None

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work`` in the background for as long as the process lives; its end, however it comes, ends it."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self.ended)
        return task

    def ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        self.failure = task.exception() or RuntimeError(f"background task {task.get_name()} returned")
        log.critical("background task %s died: stopping", task.get_name(), exc_info=self.failure)
        self.stopping.set()


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they are gone."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def race(*competitors: Awaitable[Any]) -> int:
    """The index of the first to finish (the earliest given wins a tie); cancels the others. Raises what it raised."""
    tasks = [asyncio.ensure_future(competitor) for competitor in competitors]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        winner = next(task for task in tasks if task in done)
        winner.result()
        return tasks.index(winner)
    finally:
        await cancel(*tasks)


async def gateway_of(request: Request) -> Gateway:
    """A coroutine only because FastAPI would send a plain function to a thread."""
    gateway: Gateway = request.app.state.gateway
    return gateway


GatewayState = Annotated[Gateway, Depends(gateway_of)]
