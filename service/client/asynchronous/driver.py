"""What carries a dialogue out, and follows a job, in asyncio."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Any, Self, TypeVar

import anyio
import httpx
from httpx_sse import EventSource

from service.client.address import HERE, connection
from service.client.dialogue import CLOSED, LEAVE_S, Ask, Dialogue, Owned, Pause, Steps
from service.client.events import Event
from service.client.listening import Listening, lost, streams
from service.errors import VqdError

T = TypeVar("T")


class Driver:
    def __init__(self, url: str = HERE, api_key: str | None = None, timeout_s: float = 30.0) -> None:
        with connection(url, api_key, timeout_s) as options:
            self.connections = httpx.AsyncClient(**options)
        self.dialogue, self.timeout_s = Dialogue(url, timeout_s), timeout_s
        self.owned: set[Owned] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        async with anyio.create_task_group() as group:
            for owned in self.owned:
                group.start_soon(self.leave, owned)
        await self.connections.aclose()

    async def leave(self, owned: Owned) -> None:
        if not (owned.job and owned.job.over):
            with anyio.move_on_after(LEAVE_S, shield=True), suppress(VqdError):  # it may be over, or the service gone
                await self.run(self.dialogue.leave(owned))

    @property
    def http(self) -> httpx.AsyncClient:
        if self.connections.is_closed:
            raise VqdError(CLOSED)
        return self.connections

    async def run(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    answer = await self.carry_out(step)
                except httpx.RequestError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result

    async def carry_out(self, step: Ask | Pause) -> Any:
        if isinstance(step, Ask):
            return await self.http.request(step.method, step.path, **step.options)
        return await anyio.sleep(step.seconds)

    async def listen(self, listening: Listening) -> AsyncGenerator[Event, None]:
        while not listening.over:
            options = listening.connection(self.timeout_s)
            with lost:
                async with self.http.stream("GET", listening.path, **options) as response:
                    if not streams(response):
                        await response.aread()
                    listening.accept(response)
                    if listening.over:
                        return
                    async with aclosing(EventSource(response).aiter_sse()) as source:
                        async for heard in source:
                            if event := listening.hear(heard):
                                yield event
                            if listening.over or listening.stale:
                                break
            await anyio.sleep(listening.pause_s())


class AsyncEvents(AsyncIterator[Event]):
    """Events as they come. Their connection ends with the ``async with`` block, with ``close``, and with the last."""

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        self.events = events

    async def __anext__(self) -> Event:
        return await anext(self.events)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self.events.aclose()
