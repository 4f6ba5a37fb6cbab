"""The retry policy of Triton calls."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from service.errors import TritonTimeout, TritonUnavailable

T = TypeVar("T")


async def with_retries(
    call: Callable[[], Awaitable[T]], attempts: int = 3, pause_s: float = 0.1, longest_pause_s: float = 2.0
) -> T:
    """``call()`` until it succeeds, ``attempts`` times at most, while it raises TritonUnavailable.

    The pause doubles each time and is spread at random, so that many workers do not come back at once. Who was silent
    for too long is not asked again: others can do the work meanwhile. What is raised has ``reached`` if any try had.
    """
    reached = False
    for attempt in range(1, attempts + 1):
        try:
            return await call()
        except TritonUnavailable as error:
            error.reached = reached = reached or error.reached
            if attempt == attempts or isinstance(error, TritonTimeout):
                raise
            pause = min(longest_pause_s, pause_s * 2 ** (attempt - 1))
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
    raise ValueError("attempts must be at least 1")
