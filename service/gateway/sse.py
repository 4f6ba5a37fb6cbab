"""A job's events as a Server-Sent Events stream (WHATWG HTML, section 9.2)."""

import logging
from collections.abc import AsyncIterator

from service.errors import NotFound, RedisUnavailable
from service.gateway.state import Gateway
from service.gateway.tasks import race
from service.messages import Event

log = logging.getLogger(__name__)

MEDIA_TYPE = "text/event-stream"
HEARTBEAT = ": still here\n\n"
HEARTBEAT_S = 15.0
RETRY = "retry: 1000\n\n"


def frame(event_id: str, event: Event) -> str:
    """One event; its name is ``progress`` or the terminal status."""
    # In ASCII, because readers of lines disagree about what ends one in Unicode.
    name = event.status if event.status.terminal else "progress"
    return f"id: {event_id}\nevent: {name}\ndata: {event.model_dump_json(ensure_ascii=True)}\n\n"


async def unread(gateway: Gateway, job_id: str, after: str) -> tuple[list[tuple[str, Event]], bool]:
    """The events after ``after``, and whether more may come: not after a terminal one, nor when the job has expired."""
    # The view is read first: whatever was terminal then has its last event in what is read next.
    try:
        terminal = (await gateway.submissions.view(job_id)).status.terminal
    except NotFound:
        return [], False
    return await gateway.submissions.events(job_id, after), not terminal


async def stream(gateway: Gateway, job_id: str, after: str) -> AsyncIterator[str]:
    """Events until the terminal one. Ends early when we stop or Redis fails: the client resumes with Last-Event-ID."""
    yield RETRY
    with gateway.notifier.watch(job_id) as watch:
        while not gateway.stopping.is_set():
            try:
                events, more = await unread(gateway, job_id, after)
            except RedisUnavailable as error:
                log.warning("events of a job end early: %s", error)
                gateway.metrics.redis_errors.inc()
                return
            for event_id, event in events:
                yield frame(event_id, event)
            after = events[-1][0] if events else after
            if not more:
                return
            if not events:
                yield HEARTBEAT
            await race(watch.wait(HEARTBEAT_S), gateway.stopping.wait())
