"""The events of a job: each once, in order, across lost connections, up to the last one."""

import time
from contextlib import suppress
from math import inf
from typing import Any, Literal, TypeAlias

import httpx
from httpx_sse import ServerSentEvent

from service.client.answers import checked, foreign
from service.client.dialogue import LAST_TRY_S, RECONNECT_S
from service.client.events import Event, read_event
from service.client.job import JobFacts
from service.errors import RetryLater, StillRunning, Unavailable

Previews: TypeAlias = bool | Literal["purity"]
"""Whether events show the pictures so far; ``"purity"``: and how sure the model is of them."""
MEDIA_TYPE = "text/event-stream"
lost = suppress(httpx.RequestError, RetryLater)
"""What ends a connection, and not the listening."""


class Listening:
    """To a job, which takes note of what is heard, over as many connections as it takes; the caller makes them.

    ``timeout_s``: how long at most, from ``began_s`` (None: from now) on the monotonic clock; a connection that may be
    silent for longer is ended for a shorter one.
    """

    def __init__(
        self,
        job: JobFacts,
        previews: Previews = False,
        timeout_s: float | None = None,
        began_s: float | None = None,
    ) -> None:
        self.job, self.previews, self.timeout_s = job, previews, timeout_s
        self.began_s = time.monotonic() if began_s is None else began_s
        self.lost_s: float | None = None
        self.after, self.over, self.patience_s = "", False, 0.0

    @property
    def path(self) -> str:
        return f"/jobs/{self.job.id}/events"

    @property
    def left_s(self) -> float:
        return inf if self.timeout_s is None else self.began_s + self.timeout_s - time.monotonic()

    def connection(self, usual_s: float) -> dict[str, Any]:
        """What httpx takes for the next one. ``usual_s``: how long it may be silent."""
        self.patience_s = max(0.001, min(usual_s, self.left_s))
        options: dict[str, Any] = {
            "headers": {"Accept": MEDIA_TYPE, "Cache-Control": "no-store", "Last-Event-ID": self.after},
            "timeout": self.patience_s,
        }
        if self.previews:
            options["params"] = {"preview": self.previews if isinstance(self.previews, str) else "true"}
        return options

    def accept(self, response: httpx.Response) -> None:
        """Raises what it says, if it is no stream; it was read then."""
        self.over = checked(response).status_code == httpx.codes.NO_CONTENT
        if not self.over and not streams(response):
            raise foreign(response)

    def hear(self, heard: ServerSentEvent) -> Event | None:
        """The next event; None for what is none, such as the sign that the service is there."""
        self.lost_s = None
        event = read_event(heard.data)
        if event:
            self.after, self.over = heard.id, event.status.terminal
            self.job.note(event)
        return event

    @property
    def stale(self) -> bool:
        """Whether the connection may stay silent for more than a second, or a tenth, longer than there is time."""
        return self.patience_s - self.left_s > late_s(self.timeout_s or 0)

    @property
    def until_s(self) -> float:
        """When all else, too, is given up, on the monotonic clock."""
        return end_of(self.timeout_s, self.began_s)

    def pause_s(self) -> float:
        """Until the next connection. Raises StillRunning when the time is over, Unavailable when nobody was there."""
        if self.over:
            return 0.0
        if self.left_s <= 0:
            raise StillRunning(f"job {self.job.id} is not done after {self.timeout_s:g} s")
        if self.stale:
            return 0.0
        now_s = time.monotonic()
        self.lost_s = self.lost_s or now_s
        if now_s - self.lost_s > LAST_TRY_S:
            raise Unavailable(f"{self.job.place} sent no event of job {self.job.id} for {LAST_TRY_S:.0f} s")
        return min(RECONNECT_S, self.left_s)


def late_s(timeout_s: float) -> float:
    """How much later than ``timeout_s`` it may become."""
    return max(1.0, 0.1 * timeout_s)


def end_of(timeout_s: float | None, began_s: float) -> float:
    """When what may last ``timeout_s`` is given up at the latest."""
    return inf if timeout_s is None else began_s + timeout_s + late_s(timeout_s)


def streams(response: httpx.Response) -> bool:
    return response.status_code == httpx.codes.OK and MEDIA_TYPE in response.headers.get("Content-Type", "")
