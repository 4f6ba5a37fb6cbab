"""How far a job is, as the service reports it."""

from pydantic import Base64Bytes, Field, InstanceOf, ValidationError

from service import messages
from service.client.pictures import Pictures


class Preview(messages.Record):
    """One of a job's pictures so far, as a small PNG; ``index``: its place in the job. ``purity_map``: a grey PNG with
    a pixel for each token, white where the model is sure."""

    index: int
    png: Base64Bytes = Field(validation_alias="b64_png", repr=False)
    purity_map: Base64Bytes | None = Field(default=None, repr=False)


class Event(messages.Event):
    """``previews``: of each picture that has a new one. ``pictures``: at the end of a stream."""

    previews: tuple[Preview, ...] = ()
    pictures: InstanceOf[Pictures] | None = None

    @property
    def preview(self) -> bytes | None:
        """The first picture so far, as PNG; None in events that have none."""
        return self.previews[0].png if self.previews else None


def read_event(data: str) -> Event | None:
    """None for a heartbeat or a `retry`, which come without data, and for an event that only a newer client knows."""
    try:
        return Event.model_validate_json(data) if data else None
    except ValidationError:
        return None
