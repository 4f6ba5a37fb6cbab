"""Tasks beside the requests: started so that a fault is heard at once, raced, and ended."""

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from typing import Any

log = logging.getLogger(__name__)


def in_background(name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run ``work`` for a while. What it dies of is logged then, not when somebody asks for it."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(report)
    return task


def report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("background task %s died", task.get_name(), exc_info=error)


async def cancel_tasks(*tasks: asyncio.Task[Any]) -> None:
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
        await cancel_tasks(*tasks)
