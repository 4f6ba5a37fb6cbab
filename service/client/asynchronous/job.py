"""A job, and what can be done with it."""

from contextlib import aclosing, suppress
from typing import Self

import anyio

from service.client.answers import Answer
from service.client.asynchronous.driver import AsyncEvents, Driver
from service.client.dialogue import LEAVE_S
from service.client.job import JobFacts
from service.client.listening import Listening, Previews
from service.client.pictures import Pictures
from service.errors import StillRunning, VqdError


class AsyncJob(JobFacts):
    """``async with await client.submit(…) as job``: cancelled when the block is left by an error before its end."""

    def __init__(self, driver: Driver, answer: Answer) -> None:
        super().__init__(answer, driver.dialogue.place)
        self.driver = driver

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind and not self.over:
            with anyio.move_on_after(LEAVE_S, shield=True), suppress(VqdError):  # it may be over, or the service gone
                await self.cancel()

    async def refresh(self) -> Self:
        self.answer = await self.driver.run(self.driver.dialogue.look(self.id))
        return self

    def events(self, previews: Previews = False) -> AsyncEvents:
        return AsyncEvents(self.driver.listen(Listening(self, previews)))

    async def wait(self, timeout_s: float | None = None) -> Pictures:
        return await self.outcome(Listening(self, timeout_s=timeout_s))

    async def outcome(self, listening: Listening) -> Pictures:
        try:
            if not self.over:
                async with aclosing(self.driver.listen(listening)) as events:
                    async for _ in events:
                        pass
        except StillRunning:
            with suppress(VqdError):
                self.answer = await self.driver.run(self.driver.dialogue.look(self.id, listening.until_s))
            if not self.over:
                raise
        return await self.driver.run(self.driver.dialogue.pictures(self.id, listening.until_s))

    async def pictures(self) -> Pictures:
        return await self.driver.run(self.driver.dialogue.pictures(self.id))

    async def cancel(self) -> None:
        self.answer = await self.driver.run(self.driver.dialogue.cancel(self.id))
