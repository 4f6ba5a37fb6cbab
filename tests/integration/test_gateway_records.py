"""Promise 18, the gateway's part: no record of another version of the service stops it, and none is a 500."""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    MODEL,
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)

from service.diffusion.samplers import SAMPLERS
from service.queue import keys
from service.serving import WorkerInfo
from service.settings import Settings

Fields = dict[str, Any]
FOREIGN = WorkerInfo(id="foreign", model=MODEL.model_copy(update={"name": "newer"}), state="ready")
NEVER_MS = 10**15


@pytest.fixture
def store(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.redis_url) as client:
        yield client


def changed(change: Callable[[Fields], object]) -> bytes:
    """The registration of a worker of another version."""
    record = json.loads(FOREIGN.model_dump_json())
    change(record)
    return json.dumps(record).encode()


def register(store: redis.Redis, record: bytes) -> None:
    store.hset(keys.WORKERS, "foreign", record)
    store.zadd(keys.WORKERS_UNTIL, {"foreign": NEVER_MS})


UNREADABLE = [
    b"no JSON",
    b"\xff",
    b"[]",
    b"null",
    b"{}",
    changed(lambda record: record.pop("model")),
    changed(lambda record: record["model"].pop("tokens")),
    changed(lambda record: record["model"]["defaults"].update(purity_form="cubic")),
    changed(lambda record: record.update(id=7)),
]


@pytest.mark.parametrize("record", UNREADABLE)
def test_a_registration_that_cannot_be_read_is_left_out(
    gateway: RunningGateway,
    worker: TinyWorker,
    store: redis.Redis,
    record: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gateway.gateway.directory.max_age_s = 0
    register(store, record)
    for _ in range(2):
        assert gateway.http.get("/readyz").status_code == 200
        assert [card["id"] for card in gateway.http.get("/v1/models").json()["data"]] == ["shapes"]
        assert gateway.ask().status_code == 200
    assert gateway.metric('vqd_unreadable_records_total{kind="registration"}') >= 6
    assert len([r for r in caplog.records if "registration of a worker cannot be read" in r.getMessage()]) == 1


def test_what_can_be_read_of_a_registration_counts(
    gateway: RunningGateway, worker: TinyWorker, store: redis.Redis
) -> None:
    gateway.gateway.directory.max_age_s = 0
    register(store, changed(lambda record: record["model"].update(samplers=["purity", "euler"], rating="A")))
    cards = {card["id"]: card for card in gateway.http.get("/v1/models").json()["data"]}
    assert cards["newer"]["samplers"] == ["purity"]
    refused = gateway.ask(model="newer", sampler="euler").json()
    assert refused["errors"][0]["allowed"] == "one of " + ", ".join(SAMPLERS)
    assert gateway.start(model="newer")


def test_a_worker_in_an_unknown_state_is_not_ready(gateway: RunningGateway, store: redis.Redis) -> None:
    gateway.gateway.directory.max_age_s = 0
    register(store, changed(lambda record: record.update(state="warming")))
    answer = gateway.http.get("/readyz")
    assert (answer.status_code, len(answer.json()["reasons"])) == (503, 1)
    assert "worker foreign is unready" in answer.json()["reasons"][0]
    assert gateway.start(model="newer")
    assert gateway.metric('vqd_unreadable_records_total{kind="registration"}') >= 1
    assert gateway.metric('vqd_workers{state="unready"}') == 1


def rewrite(store: redis.Redis, job_id: str, field: str, change: Callable[[Fields], object]) -> None:
    """Change the JSON in one field of a job's record."""
    record = json.loads(store.hget(keys.job(job_id), field))
    change(record)
    store.hset(keys.job(job_id), field, json.dumps(record))


OTHER_JOBS: list[Callable[[redis.Redis, str], object]] = [
    lambda store, job: store.hset(keys.job(job), "job", "no JSON"),
    lambda store, job: store.hset(keys.job(job), "job", b"\xff"),
    lambda store, job: store.hset(keys.job(job), "evaluation", "many"),
    lambda store, job: store.hset(keys.job(job), "failure", "{}"),
    lambda store, job: store.hdel(keys.job(job), "created_ms"),
    lambda store, job: store.hdel(keys.job(job), "status"),
    lambda store, job: rewrite(store, job, "job", lambda record: record["parameters"].update(format="avif")),
    lambda store, job: rewrite(store, job, "job", lambda record: record.update(priority="urgent")),
    lambda store, job: rewrite(store, job, "result", lambda record: record.pop("timings")),
]


@pytest.mark.parametrize("change", OTHER_JOBS)
def test_a_job_that_cannot_be_read_is_said_to_be_so(
    gateway: RunningGateway,
    worker: TinyWorker,
    store: redis.Redis,
    change: Callable[[redis.Redis, str], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """503, for another gateway may be able to; and its neighbours are as they were."""
    headers = {"Idempotency-Key": "foreign"}
    job_id = gateway.http.post("/generate", json={"prompt": "a"}, headers=headers).json()["id"]
    change(store, job_id)
    answers = [
        gateway.http.get(f"/jobs/{job_id}"),
        gateway.http.get(f"/jobs/{job_id}/events"),
        gateway.http.delete(f"/jobs/{job_id}"),
        gateway.http.post("/generate", json={"prompt": "a"}, headers=headers),
    ]
    for answer in answers:
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:vqd:problem:other-version"), answer.text
        assert int(answer.headers["Retry-After"]) > 0
    assert gateway.metric('vqd_unreadable_records_total{kind="job"}') == len(answers)
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 1
    assert gateway.ask().status_code == 200


def test_a_job_in_an_unknown_state_runs_until_it_has_ended(
    gateway: RunningGateway, worker: TinyWorker, store: redis.Redis
) -> None:
    worker.hold.set()
    job_id = gateway.start()
    until(lambda: gateway.job(job_id)["status"] == "running")
    store.hset(keys.job(job_id), mapping={"status": "paused", "colour": "red"})
    assert gateway.job(job_id)["status"] == "running"
    store.hset(keys.job(job_id), mapping={"status": "expired", "finished_ms": 1})
    assert gateway.job(job_id)["status"] == "failed"
    assert gateway.http.get(f"/jobs/{job_id}/events").status_code == 200
    assert gateway.http.delete(f"/jobs/{job_id}").status_code == 409
    assert gateway.metric('vqd_unreadable_records_total{kind="job"}') >= 2


def test_events_that_cannot_be_read_are_left_out(
    gateway: RunningGateway, worker: TinyWorker, store: redis.Redis
) -> None:
    worker.hold.set()
    job_id = gateway.start()
    until(lambda: gateway.job(job_id)["evaluation"] == 1)
    good = {"evaluation": 1, "evaluations": 4, "committed": 0.25, "status": "running"}
    others: list[dict[Any, Any]] = [
        good | {"status": "paused"},
        good | {"committed": "most"},
        good | {"detail": b"\xff"},
        {"evaluation": 1},
    ]
    for place, fields in enumerate([*others, good | {"mood": "fine"}], start=1):
        store.xadd(keys.events(job_id), fields, id=f"1-{place}")
    with gateway.http.stream("GET", f"/jobs/{job_id}/events") as response:
        lines = (line for line in response.iter_lines() if line.startswith("id:"))
        first = next(lines)
        worker.hold.clear()  # not before: whoever comes when the job has ended reads its events twice
        assert [first, *lines] == ["id: 1-0", "id: 1-5", "id: 2-0", "id: 4-1"]
    assert gateway.metric('vqd_unreadable_records_total{kind="event"}') == len(others)


def test_a_notification_that_cannot_be_read_wakes_nobody(
    gateway: RunningGateway, worker: TinyWorker, store: redis.Redis
) -> None:
    for message in (b"\xff", b"", b"{}", b"a job of tomorrow"):
        store.publish(keys.CHANNEL, message)
    assert gateway.ask().status_code == 200
    assert gateway.gateway.died_of is None
