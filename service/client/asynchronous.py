"""The client that is awaited: ``vqd.AsyncClient``. What each name does, its twin in ``blocking`` says."""

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Any, Self, TypeVar, Unpack

import anyio
import httpx
from httpx_sse import EventSource

from service.client.address import HERE, connection
from service.client.answers import Answer
from service.client.dialogue import Ask, Dialogue, Pause, Steps
from service.client.events import Event
from service.client.fields import Fields, Options, Source
from service.client.job import JobFacts
from service.client.listening import Listening, Previews, lost, streams
from service.client.pictures import Pictures
from service.errors import VqdError

T = TypeVar("T")
CANCEL_S = 5.0
"""How long a task that was cancelled may take to cancel its job."""


class AsyncClient:
    """``Client`` for asyncio. ``stream`` and a job's ``events`` are iterated, everything else is awaited."""

    def __init__(self, url: str = HERE, api_key: str | None = None, timeout_s: float = 30.0) -> None:
        with connection(url, api_key, timeout_s) as options:
            self.http = httpx.AsyncClient(**options)
        self.dialogue, self.timeout_s = Dialogue(url), timeout_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self.http.aclose()

    async def generate(
        self, prompt: str | None = None, *, timeout_s: float | None = None, **fields: Unpack[Fields]
    ) -> Pictures:
        """The pictures, once they are made. A task that is cancelled cancels the job, as any early end does."""
        began_s = time.monotonic()
        async with await self.submit(prompt, timeout_s=timeout_s, **fields) as job:
            return await job.wait(None if timeout_s is None else began_s + timeout_s - time.monotonic())

    async def edit(
        self,
        prompt: str | None = None,
        *,
        image: Source,
        mask: Source | None = None,
        timeout_s: float | None = None,
        **options: Unpack[Options],
    ) -> Pictures:
        fields: Fields = {**options, "image": image, "mask": mask}
        return await self.generate(prompt, timeout_s=timeout_s, **fields)

    def stream(
        self, prompt: str | None = None, *, previews: Previews = False, **fields: Unpack[Fields]
    ) -> "AsyncEvents":
        async def events() -> AsyncGenerator[Event, None]:
            async with await self.submit(prompt, **fields) as job, job.events(previews) as events:
                async for event in events:
                    yield event.model_copy(update={"pictures": await job.pictures()}) if job.over else event

        return AsyncEvents(events())

    async def submit(
        self, prompt: str | None = None, *, timeout_s: float | None = None, **fields: Unpack[Fields]
    ) -> "AsyncJob":
        return AsyncJob(self, await self.run(self.dialogue.submit({"prompt": prompt, **fields}, timeout_s)))

    async def job(self, job_id: str) -> "AsyncJob":
        return AsyncJob(self, await self.run(self.dialogue.look(job_id)))

    async def jobs(self, limit: int = 20) -> list["AsyncJob"]:
        return [AsyncJob(self, answer) for answer in await self.run(self.dialogue.jobs(limit))]

    async def models(self) -> list[Answer]:
        return await self.run(self.dialogue.models())

    async def run(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    answer = await self.carry_out(step)
                except httpx.TransportError as error:
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

    async def listen(self, job: "AsyncJob", listening: Listening) -> AsyncGenerator[Event, None]:
        path = f"/jobs/{job.id}/events"
        while not listening.over:
            with lost:
                async with self.http.stream("GET", path, **listening.connection(self.timeout_s)) as response:
                    if not streams(response):
                        await response.aread()
                    listening.accept(response)
                    if listening.over:
                        return
                    async with aclosing(EventSource(response).aiter_sse()) as source:
                        async for heard in source:
                            if event := listening.hear(heard):
                                yield job.note(event)
                            if listening.over or listening.stale:
                                break
            await anyio.sleep(listening.pause_s())


class AsyncJob(JobFacts):
    """``async with await client.submit(…) as job``: cancelled when the block is left by an error before its end."""

    def __init__(self, client: AsyncClient, answer: Answer) -> None:
        super().__init__(answer)
        self.client = client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind and not self.over:
            with anyio.move_on_after(CANCEL_S, shield=True), suppress(VqdError):  # it may be over, or the service gone
                await self.cancel()

    async def refresh(self) -> Self:
        self.answer = await self.client.run(self.client.dialogue.look(self.id))
        return self

    def events(self, previews: Previews = False) -> "AsyncEvents":
        return AsyncEvents(self.client.listen(self, Listening(self.client.dialogue.place, self.id, previews)))

    async def wait(self, timeout_s: float | None = None) -> Pictures:
        if not self.over:
            listening = Listening(self.client.dialogue.place, self.id, timeout_s=timeout_s)
            async with aclosing(self.client.listen(self, listening)) as events:
                async for _ in events:
                    pass
        return await self.pictures()

    async def pictures(self) -> Pictures:
        return await self.client.run(self.client.dialogue.pictures(self.id))

    async def cancel(self) -> None:
        self.answer = await self.client.run(self.client.dialogue.cancel(self.id))


class AsyncEvents(AsyncIterator[Event]):
    """Events as they come. ``async with`` ends their connection where it is left, as ``close`` does."""

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
