"""The events of jobs for many listeners: whoever listens, Redis is read once per job and change."""

import asyncio
import logging
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from service.errors import NotFound, OtherVersion, RedisUnavailable, Unavailable
from service.gateway.previews import Wanted, illustrate
from service.gateway.problems import for_clients
from service.gateway.tasks import in_background, race
from service.messages import Event
from service.queue.notify import Notifier
from service.queue.previews import Preview
from service.queue.submissions import Submissions
from service.telemetry.metrics import GatewayMetrics

log = logging.getLogger(__name__)

LOOK_S = 15.0
"""Longest time between two looks at a job: a notification may be lost while Redis restarts."""
DEADLINE_LOOK_S = 1.0
"""The same for one that may come to its deadline in the queue, where it ends only when it is looked at."""
TOLD_PER_S = 5000
"""Listeners that are told something in a second. More of one job are told less often, of more events at once."""
FRAMES_KEPT = 1024
"""As many events as Redis keeps of a job."""

Place = tuple[int, int]
"""Of an event among those of its job: the two numbers of its id."""


def place_of(event_id: str) -> Place:
    """Before all others for an empty id."""
    evaluation, _, sequence = event_id.partition("-")
    return (int(evaluation), int(sequence)) if event_id else (-1, -1)


def rest_s(listeners: int, since_s: float) -> float:
    """How long to wait before so many are told again, who were told ``since_s`` ago; after a quiet time not at all."""
    return max(0.0, listeners / TOLD_PER_S - since_s)


def frame(event_id: str, event: Event) -> str:
    """One event; its name is ``progress`` or the terminal status."""
    # In ASCII, because readers of lines disagree about what ends one in Unicode.
    name = event.status if event.status.terminal else "progress"
    shown = event.model_copy(update={"detail": event.detail and for_clients(event.detail)})
    return f"id: {event_id}\nevent: {name}\ndata: {shown.model_dump_json(ensure_ascii=True)}\n\n"


class Feed:
    """One job's events as they go over the wire. ``over``: no more will come from here."""

    def __init__(self) -> None:
        self.places: list[Place] = []
        self.frames: list[str] = []
        self.newest_id = ""
        self.newest: Event | None = None
        self.previews: Sequence[Preview] = ()
        self.version = 0
        """Of the previews: how often there were new ones."""
        self.illustrated: dict[Wanted, str] = {}
        """The newest event with them, as far as somebody wanted it."""
        self.listeners: set[Listener] = set()
        self.known = self.over = False
        self.task: asyncio.Task[None] | None = None

    def add(self, events: Sequence[tuple[str, Event]]) -> None:
        """What was read, be it nothing; wakes those for whom it is news."""
        self.places += [place_of(event_id) for event_id, _ in events]
        self.frames += [frame(event_id, event) for event_id, event in events]
        del self.places[:-FRAMES_KEPT], self.frames[:-FRAMES_KEPT]
        if events:
            self.newest_id, self.newest = events[-1]
            self.illustrated.clear()
        if events or not self.known:
            self.known = True
            self.wake()

    @property
    def watched(self) -> bool:
        return any(listener.wanted is not Wanted.NOTHING for listener in self.listeners)

    def add_previews(self, previews: Sequence[Preview]) -> None:
        """The newest; they go out with the next event."""
        if previews and previews != self.previews:
            self.previews, self.version = previews, self.version + 1
            self.illustrated.clear()

    def newest_frame(self, wanted: Wanted) -> str:
        """The newest event with its previews; the end of a job has none."""
        assert self.newest
        if self.newest.status.terminal:
            return self.frames[-1]
        if wanted not in self.illustrated:
            self.illustrated[wanted] = frame(self.newest_id, illustrate(self.newest, self.previews, wanted))
        return self.illustrated[wanted]

    def end(self) -> None:
        self.over = True
        self.wake()

    def wake(self) -> None:
        for listener in self.listeners:
            listener.woken.set()


class Listener:
    """One client of a feed, and the place of the last event that it has. ``wanted``: previews, and which."""

    def __init__(self, feed: Feed, after: Place, wanted: Wanted = Wanted.NOTHING) -> None:
        self.feed, self.after, self.wanted = feed, after, wanted
        self.version = 0
        """Of the last previews that it has."""
        self.woken = asyncio.Event()
        if feed.known:
            self.woken.set()

    async def wait(self, timeout_s: float) -> None:
        """Until there may be something new, or ``timeout_s``."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.woken.wait()
        self.woken.clear()

    def take(self) -> str:
        """The frames that are new to this client; previews that are new are with the last one."""
        feed = self.feed
        start = bisect_right(feed.places, self.after)
        if start == len(feed.places):
            return ""
        self.after = feed.places[-1]
        if self.wanted is Wanted.NOTHING or self.version == feed.version:
            return "".join(feed.frames[start:])
        self.version = feed.version
        return "".join([*feed.frames[start:-1], feed.newest_frame(self.wanted)])


class Feeds:
    """The feed of every job that somebody listens to."""

    def __init__(
        self, submissions: Submissions, notifier: Notifier, metrics: GatewayMetrics, stopping: asyncio.Event
    ) -> None:
        self.submissions, self.notifier, self.metrics, self.stopping = submissions, notifier, metrics, stopping
        self.feeds: dict[str, Feed] = {}
        self.listeners = 0

    def check_room(self, limit: int) -> None:
        """Raises Unavailable when ``limit`` streams are open."""
        if self.listeners >= limit:
            raise Unavailable(f"{limit} clients follow events here, and no more may; ask for the job's state instead")

    @contextmanager
    def listen(self, job_id: str, after: str, wanted: Wanted = Wanted.NOTHING) -> Iterator[Listener]:
        feed = self.feeds.get(job_id)
        if feed is None or feed.over:
            feed = self.feeds[job_id] = Feed()
            feed.task = in_background(f"feed of job {job_id}", self.run(job_id, feed))
        listener = Listener(feed, place_of(after), wanted)
        feed.listeners.add(listener)
        self.listeners += 1
        try:
            yield listener
        finally:
            self.listeners -= 1
            feed.listeners.discard(listener)
            if not feed.listeners and feed.task:
                feed.task.cancel()
                if self.feeds.get(job_id) is feed:
                    del self.feeds[job_id]

    async def run(self, job_id: str, feed: Feed) -> None:
        """Read whenever the job changes, until it ends, we stop, nobody listens, or it cannot be read."""
        try:
            with self.notifier.watch(job_id) as watch:
                while not self.stopping.is_set() and (pause_s := await self.read(job_id, feed)):
                    told_s = time.monotonic()
                    await race(watch.wait(pause_s), self.stopping.wait())
                    await asyncio.sleep(rest_s(len(feed.listeners), time.monotonic() - told_s))
        except (RedisUnavailable, OtherVersion) as error:  # the clients resume with Last-Event-ID
            log.warning("events of job %s end early: %s", job_id, error)
            self.metrics.redis_errors.inc(isinstance(error, RedisUnavailable))
        finally:
            feed.end()

    async def read(self, job_id: str, feed: Feed) -> float:
        """Take what is new → for how long at most to wait for more; 0: no more will come."""
        try:
            news = await self.submissions.news(job_id, feed.newest_id)
            if feed.watched and not news.ended:
                feed.add_previews(await self.submissions.previews(job_id))
        except NotFound:
            return 0
        feed.add(news.events)
        if news.ended:
            return 0
        return DEADLINE_LOOK_S if news.waits and news.bounded else LOOK_S
