"""A job as the events that OpenAI's clients read."""

import time
from base64 import b64decode
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from fastapi import Request
from pydantic import Field

from service.errors import NotFound, StillRunning, VqdError
from service.gateway.acceptance import gone, hang_up
from service.gateway.answers import failure
from service.gateway.feeds import Feed
from service.gateway.openai.answers import Made, created_s, in_base64, made, usage_of
from service.gateway.openai.partials import Partials
from service.gateway.openai.rendering import Rendering
from service.gateway.previews import Wanted
from service.gateway.problems import Absent, problem_of
from service.gateway.sse import HEARTBEAT, HEARTBEAT_S
from service.gateway.state import Gateway
from service.gateway.tasks import in_background
from service.messages import JobView, Result, Status
from service.queue.previews import Preview
from service.queue.submissions import Accepted
from service.serving import ModelInfo

GENERATION, EDIT = "image_generation", "image_edit"
"""What the types of the events begin with."""


class PictureEvent(Made):
    """One picture, or what it looks like on its way there."""

    type: str
    b64_json: str
    created_at: int = Field(description="In seconds since 1970.")
    partial_image_index: int | Absent = Field(None, description="Counts what comes before the picture itself.")
    index: int = Field(0, description="Which of the job's pictures it is.")
    seed: int | Absent = None
    job: str = Field(description="`GET /jobs/{job}` has everything else.")
    warnings: list[str] | Absent = Field(None, description="What was not drawn as it was asked for.")


def frame(event: PictureEvent) -> str:
    return f"event: {event.type}\ndata: {event.model_dump_json(exclude_none=True, ensure_ascii=True)}\n\n"


def error_frame(request: Request, error: VqdError, job_id: str) -> str:
    body = bytes(problem_of(request, error, job=job_id).body).decode()
    return f"event: error\ndata: {body}\n\n"


@dataclass(frozen=True)
class Stream:
    """The events of one accepted job; ``kind``: GENERATION or EDIT. ``keep``: it goes on when the client is gone.

    ``partial_images``: the most of each picture on its way there.
    """

    gateway: Gateway
    request: Request
    took: Accepted
    model: ModelInfo
    rendering: Rendering
    kind: str
    keep: bool
    partial_images: int

    @property
    def job_id(self) -> str:
        return self.took.job_id

    async def frames(self) -> AsyncIterator[str]:
        """Until the pictures are there, or an error is. The client that goes away before takes the job with it."""
        over = False
        try:
            async for waited in self.wait():
                yield waited
            over = True
            async for told in self.ended():
                yield told
        finally:
            if not over:
                in_background(f"hang-up of job {self.job_id}", hang_up(self.gateway, self.job_id, self.keep))

    async def wait(self) -> AsyncIterator[str]:
        wanted, partials = Wanted.PICTURES if self.partial_images else Wanted.NOTHING, Partials(self.partial_images)
        with self.gateway.feeds.listen(self.job_id, "", wanted) as listener:
            yield HEARTBEAT
            while not listener.feed.over:
                await listener.wait(HEARTBEAT_S)
                if not listener.take() and not listener.feed.over:
                    yield HEARTBEAT
                async for partial in self.partials(partials, listener.feed):
                    yield partial

    async def partials(self, partials: Partials, feed: Feed) -> AsyncIterator[str]:
        for place, preview in partials.new(feed):
            yield frame(await self.partial(place, preview))

    async def partial(self, place: int, preview: Preview) -> PictureEvent:
        """A preview in the size and format of the picture to come. It is scaled where pictures are not, too."""
        how = replace(self.rendering, scaling="nearest" if self.rendering.scaling == "off" else self.rendering.scaling)
        return PictureEvent(
            type=f"{self.kind}.partial_image",
            b64_json=in_base64(await self.gateway.renderer.render(how, b64decode(preview.b64_png))),
            created_at=int(time.time()),
            partial_image_index=place,
            index=preview.index,
            job=self.job_id,
            **made(self.rendering, self.model, None),
        )

    async def ended(self) -> AsyncIterator[str]:
        try:
            view = await self.gateway.submissions.view(self.job_id)
            if not view.status.terminal:
                raise StillRunning("the stream ends before the job does; ask for the job")
            if view.status is not Status.SUCCEEDED or view.result is None:
                raise failure(view)
            for place in range(len(view.result.images)):
                yield frame(await self.completed(view, view.result, place))
        except NotFound:
            yield error_frame(self.request, gone(self.took), self.job_id)
        except VqdError as error:
            yield error_frame(self.request, error, self.job_id)

    async def completed(self, view: JobView, result: Result, place: int) -> PictureEvent:
        file = await self.gateway.submissions.image(self.job_id, place)
        return PictureEvent(
            type=f"{self.kind}.completed",
            b64_json=in_base64(await self.gateway.renderer.rendered(self.rendering, file)),
            created_at=created_s(view),
            index=place,
            seed=result.images[place].seed,
            job=self.job_id,
            warnings=list(result.warnings) or None,
            **made(self.rendering, self.model, usage_of(view, self.model, range(place, place + 1))),
        )
