"""A job's events as a Server-Sent Events stream (WHATWG HTML, section 9.2)."""

from collections.abc import AsyncIterator
from typing import Any

from service.gateway.feeds import Feeds
from service.gateway.previews import Event, Wanted
from service.gateway.problems import SCHEMA_REF

MEDIA_TYPE = "text/event-stream"
CONTENT: dict[str, Any] = {
    "schema": {"description": "Text to some generators, a list of events to others."},
    "itemSchema": {
        "type": "object",
        "required": ["id", "event", "data"],
        "properties": {
            "id": {"type": "string"},
            "event": {"enum": ["progress", "succeeded", "failed", "cancelled"]},
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {"$ref": SCHEMA_REF.format(model=Event.__name__)},
            },
        },
    },
}
"""For the OpenAPI document: the stream, and each event of it (OpenAPI 3.2's word for that; FastAPI uses it, too)."""
HEARTBEAT = ": still here\n\n"
HEARTBEAT_S = 15.0
RETRY = "retry: 1000\n\n"


async def stream(feeds: Feeds, job_id: str, after: str, wanted: Wanted) -> AsyncIterator[str]:
    """Events until the terminal one. Ends early when we stop or Redis fails: the client resumes with Last-Event-ID."""
    yield RETRY
    with feeds.listen(job_id, after, wanted) as listener:
        over = False
        while not over:
            await listener.wait(HEARTBEAT_S)
            over = listener.feed.over
            frames = listener.take()
            if frames or not over:
                yield frames or HEARTBEAT
