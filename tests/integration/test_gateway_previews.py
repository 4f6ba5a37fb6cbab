"""Previews in the events of a job: who gets them, and that nobody else pays."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from fleet import Fleet, serving
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)
from PIL import Image
from test_gateway_streams import ids, say

from service.messages import Job
from service.queue import keys
from service.queue.previews import Preview, Shown
from service.settings import Settings

Events = list[dict[str, Any]]


@pytest.fixture
def store(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.redis_url) as client:
        yield client


@pytest.fixture
def held(gateway: RunningGateway, worker: TinyWorker) -> Iterator[str]:
    """A job in progress, of which nobody but the test says anything more."""
    worker.hold.set()
    worker.silent.set()
    job_id = gateway.start()
    until(lambda: gateway.job(job_id)["evaluation"] == 1)
    yield job_id
    worker.hold.clear()


def put(store: redis.Redis, job_id: str, *pictures: str) -> None:
    """As the worker does."""
    made = tuple(Preview(index=i, b64_png=text, purity_map=f"map of {text}") for i, text in enumerate(pictures))
    store.hset(keys.job(job_id), "previews", Shown(pictures=made).model_dump_json())


class Follower:
    """A client of a job's events."""

    def __init__(self, gateway: RunningGateway, job_id: str, query: str = "", after: str = "") -> None:
        self.client = httpx.Client(base_url=gateway.url, timeout=30)
        headers = {"Last-Event-ID": after} if after else {}
        self.stream = self.client.stream("GET", f"/jobs/{job_id}/events{query}", headers=headers)
        self.response = self.stream.__enter__()
        self.lines = self.response.iter_lines()

    def next(self) -> dict[str, Any]:
        """The data of the next event."""
        line = next(line for line in self.lines if line.startswith("data: "))
        found: dict[str, Any] = json.loads(line.removeprefix("data: "))
        return found

    def close(self) -> None:
        self.lines.close()  # type: ignore[attr-defined]  # a generator that is thrown away would end the stream
        self.stream.__exit__(None, None, None)
        self.client.close()


def test_only_who_asks_gets_them_and_redis_is_asked_for_no_one_else(
    gateway: RunningGateway, worker: TinyWorker, store: redis.Redis, held: str
) -> None:
    plain = Follower(gateway, held)
    assert "previews" not in plain.next()
    assert not store.hexists(keys.job(held), "preview")
    put(store, held, "a", "b")
    read_commands(store)
    say(worker, held, 2)
    assert "previews" not in plain.next()
    assert "cmdstat_hget" not in read_commands(store)
    asking, purity = Follower(gateway, held, "?preview=true"), Follower(gateway, held, "?preview=purity")
    until(lambda: gateway.gateway.feeds.listeners == 3)
    assert store.hget(keys.job(held), "preview") == b"askers"
    for follower in (asking, purity):
        assert [follower.next()["evaluation"] for _ in range(2)] == [1, 2]
    say(worker, held, 3)
    assert "previews" not in plain.next()
    assert asking.next()["previews"] == [{"index": 0, "b64_png": "a"}, {"index": 1, "b64_png": "b"}]
    assert [each["purity_map"] for each in purity.next()["previews"]] == ["map of a", "map of b"]
    for follower in (plain, asking, purity):
        follower.close()


def read_commands(store: redis.Redis) -> dict[str, Any]:
    """What was asked since the last call."""
    found: dict[str, Any] = store.info("commandstats")
    store.config_resetstat()
    return found


def test_each_preview_comes_once_and_only_the_newest(
    gateway: RunningGateway, worker: TinyWorker, store: redis.Redis, held: str
) -> None:
    follower = Follower(gateway, held, "?preview=true")
    follower.next()
    for evaluation, picture in ((2, "two"), (3, "two"), (4, "four"), (5, "five")):
        put(store, held, picture)
        say(worker, held, evaluation)
        event = follower.next()
        assert event["evaluation"] == evaluation
        shown = [each["b64_png"] for each in event.get("previews", [])]
        assert shown == ([] if evaluation == 3 else [picture])
    follower.close()


def test_who_comes_late_or_again_gets_the_newest_with_the_last_event(
    gateway: RunningGateway, worker: TinyWorker, store: redis.Redis, held: str
) -> None:
    first = Follower(gateway, held, "?preview=true")
    first.next()
    put(store, held, "one")
    say(worker, held, 2)
    assert first.next()["previews"]
    late, again = Follower(gateway, held, "?preview=true"), Follower(gateway, held, "?preview=true", after="2-0")
    events = [late.next() for _ in range(2)]
    assert ["previews" in event for event in events] == [False, True]
    until(lambda: gateway.gateway.feeds.listeners == 3)
    say(worker, held, 3)
    event = again.next()
    assert (event["evaluation"], event["previews"][0]["b64_png"]) == (3, "one")
    for follower in (first, late, again):
        follower.close()


def test_a_request_may_ask_for_all_who_follow(gateway: RunningGateway, worker: TinyWorker, store: redis.Redis) -> None:
    """And the record of the job is as without: workers of the version before refuse a field that they do not know."""
    worker.hold.set()
    worker.silent.set()
    job_id = gateway.start(preview=True)
    until(lambda: gateway.job(job_id)["evaluation"] == 1)
    assert "preview" not in json.loads(store.hget(keys.job(job_id), "job"))
    assert not {"preview", "previews"} & Job.model_fields.keys()
    everybody, without = Follower(gateway, job_id), Follower(gateway, job_id, "?preview=false")
    for follower in (everybody, without):
        follower.next()
    asking = Follower(gateway, job_id, "?preview=true")
    asking.next()
    assert store.hget(keys.job(job_id), "preview") == b"everybody"
    put(store, job_id, "one")
    say(worker, job_id, 2)
    assert ["previews" in follower.next() for follower in (everybody, without, asking)] == [True, False, True]
    store.hset(keys.job(job_id), "evaluation", 2)  # as the event says
    worker.hold.clear()
    assert everybody.next().keys() == {"evaluation", "evaluations", "committed", "status", "detail"}, "the end has none"
    for follower in (everybody, without, asking):
        follower.close()


def test_a_wish_that_is_none_is_named(gateway: RunningGateway, worker: TinyWorker) -> None:
    wrong = gateway.http.get(f"/jobs/{gateway.start()}/events?preview=maybe")
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "preview")
    refused = gateway.ask(preview="yes")
    assert refused.json()["errors"][0] == {
        "field": "preview",
        "message": "Input should be a valid boolean",
        "allowed": "true or false",
    }


NEWER = '{"pictures": [{"index": 0, "b64_png": "new", "purity_map": "m", "depth": "d"}], "video": "v"}'


@pytest.mark.parametrize(("record", "shown"), [(NEWER, ["new"]), ("no JSON", []), ('{"films": []}', [])])
def test_previews_of_another_version_stop_nothing(
    gateway: RunningGateway, worker: TinyWorker, store: redis.Redis, held: str, record: str, shown: list[str]
) -> None:
    follower = Follower(gateway, held, "?preview=true")
    follower.next()
    store.hset(keys.job(held), "previews", record)
    say(worker, held, 2)
    assert [each["b64_png"] for each in follower.next().get("previews", [])] == shown
    assert (gateway.metric('vqd_unreadable_records_total{kind="preview"}') > 0) == (not shown)
    follower.close()


def test_the_document_tells_of_them(gateway: RunningGateway) -> None:
    document = gateway.http.get("/openapi.json").json()
    event = document["components"]["schemas"]["Event"]["properties"]
    assert event["previews"]["items"]["$ref"].endswith("/ShownPreview")
    [preview] = [p for p in document["paths"]["/jobs/{job_id}/events"]["get"]["parameters"] if p["name"] == "preview"]
    assert preview["in"] == "query"
    assert "preview" in document["components"]["schemas"]["GenerateRequest"]["properties"]


def test_from_the_request_to_the_picture_with_a_real_worker(redis_url: str, tmp_path: Path) -> None:
    """Each event once and in order, and previews that show more and more."""
    fleet = Fleet(redis_url, tmp_path, allow_unauthenticated="true")
    try:
        fleet.triton.delay_s = 0.02
        fleet.start_worker()
        with serving(fleet) as client:
            asked = {"prompt": "a", "steps": 64, "tokens_per_step": 1, "n": 2, "preview": True}
            answer = client.post("/generate", json=asked, headers={"Prefer": "respond-async"})
            text = client.get(f"/jobs/{answer.json()['id']}/events").text
    finally:
        fleet.close()
    places = [tuple(map(int, event_id.split("-"))) for event_id in ids(text)]
    assert places == sorted(set(places))
    events = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
    assert events[-1]["status"] == "succeeded"
    previews = [event["previews"] for event in events if "previews" in event]
    assert previews
    assert {each["index"] for each in previews[-1]} == {0, 1}
    sizes = {Image.open(io.BytesIO(base64.b64decode(each["b64_png"]))).size for shown in previews for each in shown}
    assert sizes == {(64, 64)}
    decoded = [call.rows for call in fleet.triton.calls if call.model == "image_decoder"]
    assert len(decoded) <= 2 + (len(places) + 1) + 2, "no more than events, beside a check or two and the end"
