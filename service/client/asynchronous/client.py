"""``vqd.AsyncClient``."""

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Unpack

from service.client.answers import Answer
from service.client.asynchronous.driver import AsyncEvents, Driver
from service.client.asynchronous.job import AsyncJob
from service.client.dialogue import Owned, Wish, wish_of
from service.client.events import Event
from service.client.fields import Fields, Options, Source, of_edit, with_previews
from service.client.listening import Listening, Previews, end_of
from service.client.pictures import Pictures


class AsyncClient(Driver):
    """``Client`` for asyncio. ``stream`` and a job's ``events`` are iterated, everything else is awaited."""

    async def generate(
        self, prompt: str | None = None, *, timeout_s: float | None = None, **fields: Unpack[Fields]
    ) -> Pictures:
        """The pictures, once they are made. A task that is cancelled cancels the job, as any early end does."""
        began_s = time.monotonic()
        async with self.own(wish_of({"prompt": prompt, **fields}), timeout_s, began_s) as job:
            return await job.outcome(Listening(job, timeout_s=timeout_s, began_s=began_s))

    async def edit(
        self,
        prompt: str | None = None,
        *,
        image: Source,
        mask: Source | None = None,
        timeout_s: float | None = None,
        **options: Unpack[Options],
    ) -> Pictures:
        return await self.generate(prompt, timeout_s=timeout_s, **of_edit(image, mask, options))

    def stream(self, prompt: str | None = None, *, previews: Previews = False, **fields: Unpack[Fields]) -> AsyncEvents:
        async def events() -> AsyncGenerator[Event, None]:
            async with (
                self.own(wish_of({"prompt": prompt, **with_previews(fields, previews)})) as job,
                job.events(previews) as events,
            ):
                async for event in events:
                    yield event.model_copy(update={"pictures": await job.pictures()}) if job.over else event

        return AsyncEvents(events())

    async def submit(
        self, prompt: str | None = None, *, timeout_s: float | None = None, **fields: Unpack[Fields]
    ) -> AsyncJob:
        owned = Owned(wish_of({"prompt": prompt, **fields}))
        try:
            return AsyncJob(self, await self.run(self.dialogue.submit(owned.wish, timeout_s)))
        except BaseException as error:  # cancelled: the job may exist, and nobody would ever hear its id
            if self.dialogue.unanswered(error):
                await self.leave(owned)
            raise

    @asynccontextmanager
    async def own(self, wish: Wish, timeout_s: float | None = None, began_s: float = 0.0) -> AsyncIterator[AsyncJob]:
        owned = Owned(wish)
        self.owned.add(owned)
        try:
            answer = await self.run(self.dialogue.submit(wish, timeout_s, end_of(timeout_s, began_s)))
            owned.job = job = AsyncJob(self, answer)
            yield job
        except BaseException as error:
            if owned.job or self.dialogue.unanswered(error):
                await self.leave(owned)
            raise
        finally:
            self.owned.discard(owned)

    async def job(self, job_id: str) -> AsyncJob:
        return AsyncJob(self, await self.run(self.dialogue.look(job_id)))

    async def jobs(self, limit: int = 20) -> list[AsyncJob]:
        return [AsyncJob(self, answer) for answer in await self.run(self.dialogue.jobs(limit))]

    async def models(self) -> list[Answer]:
        return await self.run(self.dialogue.models())
