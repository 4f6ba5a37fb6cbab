"""Which previews become partial pictures, and when: at most so many of each, spread over the way."""

import pytest

from service.gateway.feeds import Feed
from service.gateway.openai.partials import Partials
from service.messages import Event, Status
from service.queue.previews import Preview


def tell(feed: Feed, evaluation: int, status: Status = Status.RUNNING, of: int = 100) -> None:
    feed.add([(f"{evaluation}-0", Event(evaluation=evaluation, evaluations=of, committed=0.5, status=status))])


def preview(name: str, index: int = 0) -> Preview:
    return Preview(index=index, b64_png=name, purity_map="")


def told(partials: Partials, feed: Feed) -> list[tuple[int, int, str]]:
    """Which of how many, of which picture, and what it shows."""
    return [(place, one.index, one.b64_png) for place, one in partials.new(feed)]


@pytest.mark.parametrize(("most", "when"), [(1, [50]), (2, [34, 67]), (3, [25, 50, 75])])
def test_they_are_spread_and_never_more(most: int, when: list[int]) -> None:
    """Although there is a new preview after each evaluation."""
    feed, partials, sent = Feed(), Partials(most), []
    for evaluation in range(1, 101):
        feed.add_previews([preview(str(evaluation))])
        tell(feed, evaluation)
        sent += [(place, evaluation, name) for place, _, name in told(partials, feed)]
    tell(feed, 100, Status.SUCCEEDED)
    assert sent == [(place, evaluation, str(evaluation)) for place, evaluation in enumerate(when)]
    assert told(partials, feed) == []


def test_none_is_sent_twice() -> None:
    feed, partials = Feed(), Partials(3)
    feed.add_previews([preview("a"), preview("b", 1)])
    tell(feed, 60)
    assert told(partials, feed) == [(0, 0, "a"), (0, 1, "b")]
    tell(feed, 70)
    assert told(partials, feed) == []
    feed.add_previews([preview("a"), preview("c", 1)])
    tell(feed, 71)
    assert told(partials, feed) == [(1, 1, "c")]


def test_a_quick_job_shows_at_its_end_what_it_has() -> None:
    """Whatever more was asked for: it would only come after the picture itself."""
    feed, partials = Feed(), Partials(3)
    feed.add_previews([preview("a")])
    assert told(partials, feed) == []
    tell(feed, 8, Status.SUCCEEDED, of=8)
    assert told(partials, feed) == [(0, 0, "a")]
    feed.add_previews([preview("b")])
    assert told(partials, feed) == []


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED])
def test_a_job_without_pictures_shows_none_at_its_end(status: Status) -> None:
    feed, partials = Feed(), Partials(3)
    feed.add_previews([preview("a")])
    tell(feed, 8, status, of=8)
    assert told(partials, feed) == []


def test_who_asks_for_none_gets_none() -> None:
    feed, partials = Feed(), Partials(0)
    feed.add_previews([preview("a")])
    for evaluation, status in ((50, Status.RUNNING), (100, Status.SUCCEEDED)):
        tell(feed, evaluation, status)
        assert told(partials, feed) == []
