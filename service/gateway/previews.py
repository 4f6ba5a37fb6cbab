"""What a client sees of pictures in progress, beside the numbers of an event."""

from collections.abc import Sequence
from enum import StrEnum

from pydantic import BaseModel, Field

from service import messages
from service.gateway.problems import Absent
from service.messages import JobView
from service.queue.previews import Preview, PreviewsFor
from service.queue.submissions import Submissions


class Wanted(StrEnum):
    """The query parameter ``preview``."""

    NOTHING = "false"
    PICTURES = "true"
    PURITY = "purity"


class ShownPreview(BaseModel):
    """One of the job's pictures so far."""

    index: int = Field(description="Its place in the job.")
    b64_png: str = Field(description="A PNG in base64, at most 64 pixels wide and high; what has no token yet is grey.")
    purity_map: str | Absent = Field(
        None,
        exclude_if=lambda purity_map: purity_map is None,
        description="With `preview=purity`: a grey PNG in base64, a pixel for each token; the brighter, the surer.",
    )


class Event(messages.Event):
    """Progress of a job, or its end. ``evaluation`` counts over all its images and never goes back; the event's id
    begins with it."""

    previews: list[ShownPreview] | Absent = Field(
        None,
        exclude_if=lambda previews: previews is None,
        description="The newest of each picture that has one; in the progress event that follows them, and no other.",
    )


def illustrate(event: messages.Event, previews: Sequence[Preview], wanted: Wanted) -> Event:
    left_out = set() if wanted is Wanted.PURITY else {"purity_map"}
    shown = [preview.model_dump(exclude=left_out) for preview in previews]
    return Event.model_validate({**event.model_dump(), "previews": shown})


async def begin(submissions: Submissions, view: JobView, asked: Wanted | None) -> Wanted:
    """What a listener gets of a job, who asked for this or said nothing; its worker hears of it if need be.

    Raises RedisUnavailable.
    """
    if asked is None:
        return Wanted.PICTURES if view.previews else Wanted.NOTHING
    if asked is not Wanted.NOTHING and not view.previews:
        await submissions.ask_previews(view.job.id, PreviewsFor.ASKERS)
    return asked
