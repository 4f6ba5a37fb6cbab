"""How long to wait for Redis, so that what is waited for is Redis and not ourselves."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

LOOKS = 4


@asynccontextmanager
async def fair_timeout(seconds: float) -> AsyncIterator[None]:
    """``asyncio.timeout`` for an answer from elsewhere: one that came while our own event loop was busy is in time.

    The time ends with the last of several looks at the clock, each in a turn of the loop that also took what came.
    """
    loop, looks = asyncio.get_running_loop(), 0
    timer: asyncio.TimerHandle
    async with asyncio.timeout(None) as limit:

        def look() -> None:
            nonlocal timer, looks
            looks += 1
            if looks < LOOKS:
                timer = loop.call_later(seconds / LOOKS, look)
            else:
                limit.reschedule(loop.time())

        timer = loop.call_later(seconds / LOOKS, look)
        try:
            yield
        finally:
            timer.cancel()


class Slots:
    """At most ``most`` callers at a time; the others wait in order, as long as it goes on at all."""

    def __init__(self, most: int) -> None:
        self.free = most
        self.waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Wait for a slot, which must be given back. Raises what ``refuse`` was told."""
        if self.free:
            self.free -= 1
            return
        place = asyncio.get_running_loop().create_future()
        self.waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and not place.exception():
                self.give()  # it was ours already
            raise

    def give(self) -> None:
        while self.waiting:
            place = self.waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.free += 1

    def refuse(self, error: Callable[[], Exception]) -> None:
        """Let nobody wait any longer who waits now."""
        while self.waiting:
            place = self.waiting.popleft()
            if not place.done():
                place.set_exception(error())
