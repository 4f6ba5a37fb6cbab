"""Whose turn it is to call Triton."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager


class Turns:
    """Bounds the calls in flight, for on a CPU a step beside an encoding takes longer than both in turn.

    Who encodes or decodes waits for a turn (``shared``). A step takes one only while one is ``free``, which it is not
    as long as anybody waits: so encoding and decoding go before the next step, and each step carries every row that is
    here when it begins.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.semaphore = asyncio.Semaphore(count)
        self.door, self.guests = asyncio.Lock(), 0
        self.beside = asyncio.Lock()
        """Held by a call that has no turn: no step waits for it, and only who wants all turns does."""
        self.freed = asyncio.Event()
        """Set at the end of each turn, for whoever waits for one to be free; they clear it."""

    @property
    def free(self) -> bool:
        return not self.semaphore.locked()

    async def take(self) -> None:
        await self.semaphore.acquire()  # at once, when one is free

    def give_back(self) -> None:
        self.semaphore.release()
        self.freed.set()

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """A turn that encoding and decoding have together: one prompt or one picture keeps only one core busy.

        Who has it may enter it again.
        """
        async with self.door:
            if not self.guests:
                await self.take()
            self.guests += 1
        try:
            yield
        finally:
            self.guests -= 1
            if not self.guests:
                self.give_back()

    @asynccontextmanager
    async def all(self) -> AsyncIterator[None]:
        """Every turn there is: nobody else calls Triton meanwhile. For one task at a time."""
        async with AsyncExitStack() as turns:
            await turns.enter_async_context(self.beside)
            for _ in range(self.count):
                await self.take()
                turns.callback(self.give_back)
            yield
