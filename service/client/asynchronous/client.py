"""``vqd.AsyncClient``."""

import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Unpack

import anyio

from service.client.answers import Answer
from service.client.asynchronous.driver import AsyncEvents, Driver
from service.client.asynchronous.job import AsyncJob
from service.client.dialogue import LEAVE_S, wish_of
from service.client.events import Event
from service.client.fields import Fields, Options, Source, with_previews
from service.client.listening import Listening, Previews
from service.client.pictures import Pictures
from service.errors import VqdError


class AsyncClient(Driver):
    """``Client`` for asyncio. ``stream`` and a job's ``events`` are iterated, everything else is awaited."""

    async def generate(
        self, prompt: str | None = None, *, timeout_s: float | None = None, **fields: Unpack[Fields]
    ) -> Pictures:
        """The pictures, once they are made. A task that is cancelled cancels the job, as any early end does."""
        began_s = time.monotonic()
        async with await self.submit(prompt, timeout_s=timeout_s, **fields) as job:
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
        fields: Fields = {**options, "image": image, "mask": mask}
        return await self.generate(prompt, timeout_s=timeout_s, **fields)

    def stream(self, prompt: str | None = None, *, previews: Previews = False, **fields: Unpack[Fields]) -> AsyncEvents:
        async def events() -> AsyncGenerator[Event, None]:
            async with (
                await self.submit(prompt, **with_previews(fields, previews)) as job,
                job.events(previews) as events,
            ):
                async for event in events:
                    yield event.model_copy(update={"pictures": await job.pictures()}) if job.over else event

        return AsyncEvents(events())

    async def submit(
        self, prompt: str | None = None, *, timeout_s: float | None = None, **fields: Unpack[Fields]
    ) -> AsyncJob:
        wish = wish_of({"prompt": prompt, **fields})
        try:
            return AsyncJob(self, await self.run(self.dialogue.submit(wish, timeout_s)))
        except VqdError:
            raise
        except BaseException:  # cancelled: the job may exist, and nobody would ever hear its id
            with anyio.move_on_after(LEAVE_S, shield=True), suppress(VqdError):
                await self.run(self.dialogue.withdraw(wish))
            raise

    async def job(self, job_id: str) -> AsyncJob:
        return AsyncJob(self, await self.run(self.dialogue.look(job_id)))

    async def jobs(self, limit: int = 20) -> list[AsyncJob]:
        return [AsyncJob(self, answer) for answer in await self.run(self.dialogue.jobs(limit))]

    async def models(self) -> list[Answer]:
        return await self.run(self.dialogue.models())
