"""Partial pictures in the streams of the Images API: previews in the size and format that were asked for."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)
from openai import APIError, OpenAI
from openai_support import PROMPT, client_of, extra, opened
from picture_files import base64, file_of, noise
from test_gateway_streams import say

from service.queue import keys
from service.queue.previews import Preview, Shown
from service.settings import Settings


@pytest.fixture
def client(gateway: RunningGateway, worker: TinyWorker) -> Iterator[OpenAI]:
    """Of a worker that says nothing of its job but what the test says."""
    worker.hold.set()
    worker.silent.set()
    with client_of(gateway) as client:
        yield client
    worker.hold.clear()


@pytest.fixture
def store(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.redis_url) as found:
        yield found


def picture(seed: int) -> str:
    return base64(file_of(noise(8, 8, seed)))


class Job:
    """A stream that was asked for, and its job in progress."""

    def __init__(
        self, client: OpenAI, gateway: RunningGateway, worker: TinyWorker, store: redis.Redis, **asked: Any
    ) -> None:
        self.worker, self.store = worker, store
        self.stream = client.images.generate(prompt=PROMPT, stream=True, **asked)
        self.seen: list[Any] = []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        self.id: str = until(lambda: worker.taken)[-1]
        until(lambda: gateway.job(self.id)["evaluation"] == 1)
        until(lambda: gateway.gateway.feeds.listeners == 1)

    def read(self) -> None:
        """Beside the test, which would wait for ever for what does not come."""
        try:
            for event in self.stream:
                self.seen.append(event)
        except APIError as error:
            self.seen.append(error)

    def next(self) -> Any:
        return until(lambda: self.seen and self.seen.pop(0))

    def shows(self, *seeds: int) -> None:
        """The worker has made a preview of each picture."""
        made = tuple(Preview(index=i, b64_png=picture(seed), purity_map="") for i, seed in enumerate(seeds))
        self.store.hset(keys.job(self.id), "previews", Shown(pictures=made).model_dump_json())

    def comes_to(self, evaluation: int) -> None:
        """Of 100."""
        say(self.worker, self.id, evaluation)

    def ends(self) -> list[Any]:
        """What comes until then."""
        self.store.hset(keys.job(self.id), "evaluation", 100)  # the worker's own are none that is new
        self.worker.hold.clear()
        self.reader.join(10)
        assert not self.reader.is_alive()
        return self.seen


def test_each_has_all_that_openai_says_of_it(
    client: OpenAI, gateway: RunningGateway, worker: TinyWorker, store: redis.Redis
) -> None:
    job = Job(client, gateway, worker, store, partial_images=3, n=2, size="128x128", output_format="webp")
    job.shows(1, 2)
    job.comes_to(50)
    partials = [job.next() for _ in range(2)]
    assert [event.type for event in partials] == ["image_generation.partial_image"] * 2
    assert [(event.partial_image_index, extra(event, "index")) for event in partials] == [(0, 0), (0, 1)]
    for event, seed in zip(partials, (1, 2), strict=True):
        assert (event.size, event.output_format, event.quality, event.background) == (
            "128x128",
            "webp",
            "auto",
            "opaque",
        )
        assert event.created_at > 1.7e9
        assert extra(event, "job") == job.id
        shown = opened(event.b64_json)
        assert (shown.size, shown.format) == ((128, 128), "WEBP")
        assert abs(shown.resize((1, 1)).getpixel((0, 0))[0] - noise(8, 8, seed).mean((0, 1))[0]) < 20
    completed = job.ends()
    assert [event.type for event in completed] == ["image_generation.completed"] * 2
    assert "usage" not in (partials[0].model_extra or {})


def test_each_comes_once_and_as_many_as_were_asked_for(
    client: OpenAI, gateway: RunningGateway, worker: TinyWorker, store: redis.Redis
) -> None:
    job, seen = Job(client, gateway, worker, store, partial_images=2), []
    for evaluation, seed, due in ((20, 1, False), (40, 1, True), (60, 1, False), (70, 2, True), (80, 3, False)):
        job.shows(seed)
        job.comes_to(evaluation)
        if due:
            seen.append(job.next().partial_image_index)
    assert seen == [0, 1]
    assert [event.type for event in job.ends()] == ["image_generation.completed"]


def test_they_are_scaled_where_pictures_are_not(settings: Settings, store: redis.Redis) -> None:
    running = RunningGateway(settings.model_copy(update={"openai_scaling": "off"}))
    worker = TinyWorker(settings)
    worker.hold.set()
    worker.silent.set()
    try:
        until(lambda: running.http.get("/readyz").status_code == 200)
        with client_of(running) as client:
            job = Job(client, running, worker, store, partial_images=1)
            job.shows(1)
            job.comes_to(50)
            assert opened(job.next().b64_json).size == (64, 64)
            assert [event.type for event in job.ends()] == ["image_generation.completed"]
    finally:
        worker.close()
        running.close()


def reads(store: redis.Redis) -> int:
    """Of previews, since the last call: nothing else is read so."""
    found: dict[str, Any] = store.info("commandstats")
    store.config_resetstat()
    return int(found.get("cmdstat_hget", {"calls": 0})["calls"])


@pytest.mark.parametrize("asked", [{}, {"partial_images": 0}])
def test_who_asks_for_none_pays_nothing(
    client: OpenAI, gateway: RunningGateway, worker: TinyWorker, store: redis.Redis, asked: dict[str, int]
) -> None:
    """The worker hears of no wish, Redis is asked for no preview, and one that is there is not sent."""
    job = Job(client, gateway, worker, store, **asked)
    assert not store.hexists(keys.job(job.id), "preview")
    job.shows(1)
    reads(store)
    job.comes_to(50)
    until(lambda: gateway.gateway.feeds.feeds[job.id].newest_id == "50-0")
    assert reads(store) == 0
    assert [event.type for event in job.ends()] == ["image_generation.completed"]


def test_the_worker_hears_of_the_wish_with_the_job(
    client: OpenAI, gateway: RunningGateway, worker: TinyWorker, store: redis.Redis
) -> None:
    job = Job(client, gateway, worker, store, partial_images=1)
    assert store.hget(keys.job(job.id), "preview") == b"askers"
    assert worker.queue.watched == {job.id}
    job.ends()


def test_without_previews_the_stream_ends_as_ever(
    client: OpenAI, gateway: RunningGateway, worker: TinyWorker, store: redis.Redis
) -> None:
    """As with a worker that makes none, or has none to spare."""
    job = Job(client, gateway, worker, store, partial_images=3)
    job.comes_to(50)
    assert [event.type for event in job.ends()] == ["image_generation.completed"]


def test_an_error_comes_after_them(
    client: OpenAI, gateway: RunningGateway, worker: TinyWorker, store: redis.Redis
) -> None:
    job = Job(client, gateway, worker, store, partial_images=1)
    job.shows(1)
    job.comes_to(60)
    assert job.next().type == "image_generation.partial_image"
    gateway.http.delete(f"/jobs/{job.id}")
    worker.silent.clear()
    error = job.next()
    assert isinstance(error, APIError)
    assert "cancelled" in error.message


def test_a_completed_picture_says_what_was_not_drawn(
    client: OpenAI, gateway: RunningGateway, worker: TinyWorker, store: redis.Redis
) -> None:
    worker.warnings = ("prompt: the end was cut off",)
    (completed,) = Job(client, gateway, worker, store).ends()
    assert extra(completed, "warnings") == ["prompt: the end was cut off"]
