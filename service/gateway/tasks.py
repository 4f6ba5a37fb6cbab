"""Waiting for one of several things, and ending the rest."""

import asyncio
from collections.abc import Awaitable
from typing import Any


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
