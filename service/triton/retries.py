"""The retry policy of Triton calls."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from service.errors import TritonUnavailable

T = TypeVar("T")


async def with_retries(
    call: Callable[[], Awaitable[T]], attempts: int = 3, pause_s: float = 0.1, longest_pause_s: float = 2.0
) -> T:
    """``call()`` until it succeeds, ``attempts`` times at most, while it raises TritonUnavailable.

    The pause doubles each time and is spread at random, so that many workers do not come back at once.
    """
    for attempt in range(attempts - 1):
        try:
            return await call()
        except TritonUnavailable:
            pause = min(longest_pause_s, pause_s * 2**attempt)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
    return await call()
