"""What the routes share: one ``Gateway`` per application, handed to them as a dependency."""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from service.gateway.access.quota import Refusals
from service.gateway.directory import Directory
from service.gateway.feeds import Feeds
from service.gateway.openai.rendering import Renderer
from service.gateway.pictures.edits import Pictures
from service.gateway.pictures.places import Places
from service.gateway.webhooks.targets import Targets
from service.gateway.withdrawals import Withdrawals
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
    """``stopping`` ends every long answer early; ``died_of`` is what a background task died of, and so the process."""

    settings: Settings
    store: Store
    submissions: Submissions
    figures: Figures
    notifier: Notifier
    feeds: Feeds
    withdrawals: Withdrawals
    directory: Directory
    webhook_targets: Targets
    metrics: GatewayMetrics
    tracer: Tracer
    stopping: asyncio.Event
    renderer: Renderer
    places: Places
    pictures: Pictures
    refusals: Refusals
    died_of: BaseException | None = None

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work`` in the background. When it ends before we stop, or by an error, the process does."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self.ended)
        return task

    def ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (self.stopping.is_set() and task.exception() is None):
            return
        self.died_of = task.exception() or RuntimeError(f"background task {task.get_name()} returned")
        log.critical("background task %s died: stopping", task.get_name(), exc_info=self.died_of)
        self.stopping.set()


async def gateway_of(request: Request) -> Gateway:
    """A coroutine only because FastAPI would send a plain function to a thread."""
    gateway: Gateway = request.app.state.gateway
    return gateway


GatewayState = Annotated[Gateway, Depends(gateway_of)]
