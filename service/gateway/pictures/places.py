"""How many uploads are in memory at once: whoever sends one more waits, its bytes still with the client."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.errors import Unavailable

UPLOADS = 16
"""Received and not yet brought to the model's size."""
WAIT_S = 5.0
"""Longest wait for a place: less than a client may take to send its request."""


class Place:
    """``leave`` as soon as the upload is no longer in memory; again does nothing."""

    def __init__(self, places: asyncio.Semaphore | None) -> None:
        self.places = places

    def leave(self) -> None:
        if self.places:
            self.places.release()
            self.places = None


class Places:
    def __init__(self, count: int = UPLOADS, wait_s: float = WAIT_S) -> None:
        self.semaphore, self.wait_s = asyncio.Semaphore(count), wait_s

    @asynccontextmanager
    async def place(self, needed: bool) -> AsyncIterator[Place]:
        """Left at the latest here. Raises Unavailable when none is free for too long."""
        if needed:
            try:
                async with asyncio.timeout(self.wait_s):
                    await self.semaphore.acquire()
            except TimeoutError:
                raise Unavailable("too many pictures are being sent at once", retry_after_s=2) from None
        place = Place(self.semaphore if needed else None)
        try:
            yield place
        finally:
            place.leave()
