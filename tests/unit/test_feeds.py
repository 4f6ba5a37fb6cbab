"""The events of one job for many listeners, without a gateway: who gets which."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from service.errors import RedisUnavailable
from service.gateway.feeds import FRAMES_KEPT, TOLD_PER_S, Feed, Feeds, Listener, place_of, rest_s
from service.messages import Event, Status
from service.queue.notify import Notifier
from service.queue.store import Store
from service.queue.submissions import News, Submissions
from service.settings import Settings
from service.telemetry.metrics import GatewayMetrics

pytestmark = pytest.mark.anyio


def events(*evaluations: int) -> list[tuple[str, Event]]:
    fields = {"evaluations": 5000, "committed": 0.5, "status": Status.RUNNING}
    return [(f"{number}-0", Event.model_validate({"evaluation": number, **fields})) for number in evaluations]


def ids(frames: str) -> list[int]:
    return [int(line.removeprefix("id: ").split("-")[0]) for line in frames.splitlines() if line.startswith("id: ")]


async def test_of_more_events_than_are_kept_the_newest_go_to_everybody_once() -> None:
    feed = Feed()
    early, late = Listener(feed, place_of("")), Listener(feed, place_of("1000-0"))
    feed.add(events(*range(FRAMES_KEPT + 10)))
    assert ids(early.take()) == [*range(10, FRAMES_KEPT + 10)]
    assert ids(late.take()) == [*range(1001, FRAMES_KEPT + 10)]
    feed.add(events(FRAMES_KEPT + 10))
    assert [ids(listener.take()) for listener in (early, late)] == [[FRAMES_KEPT + 10]] * 2


def test_many_rest_between_two_events_and_not_after_a_quiet_time() -> None:
    assert rest_s(TOLD_PER_S, since_s=0.0) == 1
    assert rest_s(TOLD_PER_S, since_s=0.75) == 0.25
    assert rest_s(TOLD_PER_S, since_s=20) == 0
    assert rest_s(1, since_s=0) < 0.001


class Away(Submissions):
    """Redis cannot be read."""

    async def news(self, job_id: str, after: str = "") -> News:
        raise RedisUnavailable("away")


async def test_who_comes_back_after_a_fault_does_not_join_what_it_ended() -> None:
    """A slow client may still hold the feed that ended."""
    settings = Settings()
    store, notifier = Store.connect(settings), Notifier.connect(settings)
    metrics = GatewayMetrics(CollectorRegistry())
    feeds = Feeds(Away(store), notifier, metrics, asyncio.Event())
    with feeds.listen("one", "") as slow:
        await slow.wait(5)
        assert slow.feed.over
        with feeds.listen("one", "") as again:
            assert not again.feed.over
            assert feeds.feeds["one"] is again.feed
    assert (feeds.feeds, feeds.listeners) == ({}, 0)
    await notifier.close()
    await store.close()
