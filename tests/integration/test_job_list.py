"""The caller's jobs, and where one that waits stands in the queue."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from fleet import Fleet
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    MODEL,
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)
from key_support import Keyring, bearer

from service.condition import Condition
from service.queue import keys
from service.settings import Settings

PASSES = 8
"""Of a picture with the model's defaults: 4 evaluations, each with a prompt and without."""


@pytest.fixture
def ring(settings: Settings) -> Iterator[Keyring]:
    keyring = Keyring(settings)
    yield keyring
    keyring.close()


@pytest.fixture
def idle(worker: TinyWorker) -> TinyWorker:
    """A worker that is ready and takes nothing."""
    worker.stop()
    return worker


def listed(gateway: RunningGateway, headers: dict[str, str] | None = None, **query: object) -> dict[str, Any]:
    response = gateway.http.get("/jobs", params={name: str(value) for name, value in query.items()}, headers=headers)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    assert answer["object"] == "list"
    return answer


def ids(answer: dict[str, Any]) -> list[str]:
    return [job["id"] for job in answer["data"]]


def test_nobody_has_made_any(gateway: RunningGateway) -> None:
    assert listed(gateway) == {"object": "list", "data": [], "has_more": False}


def test_those_that_wait_come_first_and_then_those_that_ended(gateway: RunningGateway, worker: TinyWorker) -> None:
    done = [gateway.ask(seed=seed).json()["id"] for seed in range(2)]
    worker.hold.set()
    running = gateway.start()
    until(lambda: running in worker.taken)
    answer = listed(gateway)
    assert ids(answer) == [running, done[1], done[0]]
    assert [job["status"] for job in answer["data"]] == ["running", "succeeded", "succeeded"]
    assert answer["data"][1] == gateway.job(done[1])
    assert not any("ahead" in job or "b64_json" in job["images"] for job in answer["data"])
    worker.hold.clear()


def test_each_says_what_it_draws_before_there_is_a_picture(
    gateway: RunningGateway, idle: TinyWorker, settings: Settings
) -> None:
    for prompt in ("a red circle", "a blue square"):
        gateway.start(prompt=prompt)
    assert [(job["status"], job["prompt"], job["images"]) for job in listed(gateway)["data"]] == [
        ("queued", "a blue square", []),
        ("queued", "a red circle", []),
    ]
    assert "label" not in listed(gateway)["data"][0]
    gateway.gateway.directory.max_age_s = 0
    of_classes = {"name": "animals", "condition": Condition.LABEL, "classes": 3, "labels": ("cat", "dog", "emu")}
    with closing(TinyWorker(settings, MODEL.model_copy(update=of_classes), "other")) as other:
        other.stop()
        asked = {"model": "animals", "label": "emu"}
        assert gateway.http.post("/generate", json=asked, headers={"Prefer": "respond-async"}).status_code == 202
        newest = listed(gateway)["data"][0]
    assert (newest["label"], "prompt" in newest) == (2, False)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_pages_have_each_job_once(gateway: RunningGateway, worker: TinyWorker, size: int) -> None:
    done = [gateway.ask(seed=seed).json()["id"] for seed in range(3)]
    worker.hold.set()
    waiting = [gateway.start() for _ in range(2)]
    until(lambda: waiting[0] in worker.taken)
    found, more = [], True
    while more:
        page = listed(gateway, limit=size, **({"after": found[-1]} if found else {}))
        assert len(page["data"]) == min(size, 5 - len(found))
        found, more = [*found, *ids(page)], page["has_more"]
    assert found == [*waiting[::-1], *done[::-1]]
    worker.hold.clear()


def test_jobs_that_are_kept_no_longer_are_not_listed_nor_announced(
    gateway: RunningGateway, worker: TinyWorker, settings: Settings
) -> None:
    done = [gateway.ask(seed=seed).json()["id"] for seed in range(2)]
    ended = keys.owner_ended("")
    with redis.Redis.from_url(settings.redis_url) as client:
        [old] = [member for member in client.zrange(ended, 0, -1) if member.startswith(done[0].encode())]
        client.zadd(ended, {old: 1})
        client.delete(keys.job(done[0]))
    assert listed(gateway, limit=1) == {"object": "list", "data": [gateway.job(done[1])], "has_more": False}


def test_jobs_that_ended_at_the_same_moment_are_each_on_one_page(
    gateway: RunningGateway, worker: TinyWorker, settings: Settings
) -> None:
    done = [gateway.ask(seed=seed).json()["id"] for seed in range(3)]
    ended = keys.owner_ended("")
    with redis.Redis.from_url(settings.redis_url) as client:
        (latest,) = client.zrange(ended, -1, -1, withscores=True)
        client.zadd(ended, dict.fromkeys(client.zrange(ended, 0, -1), latest[1]))
        for job in done:
            client.hset(keys.job(job), "finished_ms", int(latest[1]) - 1000 * settings.result_ttl_s)
    found: list[str] = []
    for _ in done:
        found += ids(listed(gateway, limit=1, **({"after": found[-1]} if found else {})))
    assert sorted(found) == sorted(done)


def test_a_job_that_ends_between_two_pages_hides_none_of_those_that_wait(
    gateway: RunningGateway, idle: TinyWorker
) -> None:
    ended = gateway.start()
    gateway.http.delete(f"/jobs/{ended}")
    older, newer, newest = (gateway.start() for _ in range(3))
    assert ids(listed(gateway, limit=2)) == [newest, newer]
    gateway.http.delete(f"/jobs/{newer}")
    assert ids(listed(gateway, after=newer)) == [older, newer, ended]
    assert ids(listed(gateway, limit=3)) == [newest, older, newer]
    assert ids(listed(gateway, after=newer)) == [ended], "it was shown as one that has ended"


@pytest.mark.parametrize("gone", [True, False], ids=["a job that has just expired", "a job of another version"])
def test_what_cannot_be_shown_hides_no_other(
    gateway: RunningGateway, worker: TinyWorker, settings: Settings, gone: bool
) -> None:
    done = [gateway.ask(seed=seed).json()["id"] for seed in range(3)]
    with redis.Redis.from_url(settings.redis_url) as client:
        if gone:
            client.delete(keys.job(done[1]))
        else:
            client.hset(keys.job(done[1]), "job", "{}")
    assert ids(listed(gateway)) == [done[2], done[0]]


def test_a_key_sees_its_own_jobs(gateway: RunningGateway, idle: TinyWorker, ring: Keyring) -> None:
    alice, bob, watcher = ring.make(name="alice"), ring.make(name="bob"), ring.make("metrics", name="watcher")
    job = gateway.start(bearer(alice))
    assert ids(listed(gateway, bearer(alice))) == [job]
    assert ids(listed(gateway, bearer(bob))) == []
    assert gateway.http.get("/jobs", headers=bearer(watcher)).status_code == 403
    behind = gateway.http.get("/jobs", params={"after": job}, headers=bearer(bob))
    assert (behind.status_code, behind.json()["type"]) == (404, "urn:vqd:problem:not-found")


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("limit", "0", "1"),
        ("limit", "101", "100"),
        ("limit", "many", "integer"),
        ("after", "a b", "A-Za-z0-9_-"),
    ],
)
def test_wrong_limits_are_named(gateway: RunningGateway, field: str, value: str, allowed: str) -> None:
    response = gateway.http.get("/jobs", params={field: value})
    assert response.status_code == 422
    [error] = response.json()["errors"]
    assert field in error["field"]
    assert allowed in error["message"]


def test_a_job_that_waits_says_how_many_go_first(gateway: RunningGateway, idle: TinyWorker) -> None:
    waiting = [gateway.start(n=2) for _ in range(3)]
    answers = [gateway.job(job) for job in waiting]
    assert [answer["ahead"] for answer in answers] == [0, 1, 2]
    assert not any("estimate_s" in answer for answer in answers), "nobody has said how fast it is"
    assert {job["id"]: job["ahead"] for job in listed(gateway)["data"]} == dict(zip(waiting, range(3), strict=True))
    batch = gateway.start(priority="batch")
    assert gateway.job(batch)["ahead"] == 0, "of its own priority"


def test_the_estimate_is_what_goes_first_at_the_pace_of_the_workers_that_are_ready(
    gateway: RunningGateway, idle: TinyWorker, settings: Settings
) -> None:
    others = [TinyWorker(settings, name=name) for name in ("b", "c", "d")]
    for other in others:
        other.stop()
    idle.passes_per_s, others[0].passes_per_s, others[1].passes_per_s = 3.0, 1.0, 100.0
    others[1].turn("unready")
    others[0].turn("ready")
    idle.turn("ready")
    first, second = gateway.start(n=4), gateway.start()
    until(lambda: "estimate_s" in gateway.job(first))
    assert gateway.job(first)["estimate_s"] == 0
    assert until(lambda: gateway.job(second).get("estimate_s")) == 4 * PASSES / (3 + 1)
    idle.turn("draining")
    until(lambda: gateway.job(second)["estimate_s"] == 4 * PASSES)
    for other in others:
        other.close()


def test_workers_of_another_model_make_nothing_of_this_one_faster(
    gateway: RunningGateway, idle: TinyWorker, settings: Settings
) -> None:
    other = TinyWorker(settings, MODEL.model_copy(update={"name": "other"}), "other")
    other.stop()
    idle.passes_per_s, other.passes_per_s = 2.0, 100.0
    other.turn("ready")
    idle.turn("ready")
    first, second = (gateway.start(model=MODEL.name) for _ in range(2))
    until(lambda: "estimate_s" in gateway.job(first))
    assert gateway.job(second)["estimate_s"] == PASSES / 2.0
    other.close()


def test_the_202_says_it_too(gateway: RunningGateway, idle: TinyWorker) -> None:
    for ahead in range(2):
        body = {"prompt": "a red circle"}
        response = gateway.http.post("/generate", json=body, headers={"Prefer": "respond-async"})
        assert (response.status_code, response.json()["ahead"]) == (202, ahead)


def test_a_worker_says_how_fast_it_was(redis_url: str, tmp_path: Path) -> None:
    fleet = Fleet(redis_url, tmp_path)
    fleet.triton.delay_s = 0.05
    try:
        fleet.start_worker()
        [before] = fleet.ask(lambda queue: queue.workers())
        assert before.passes_per_s is None
        fleet.wait(fleet.submit(steps=8))
        pace = until(lambda: fleet.ask(lambda queue: queue.workers())[0].passes_per_s)
        # Two passes in a call of one row that takes at least the delay; what it says of full ones is in proportion.
        assert 0 < pace <= 2 / 0.05
    finally:
        fleet.close()
