"""Requests that come again under one key, streams that read several events at once, workers that disagree."""

import json
from typing import Any

import pytest
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    MODEL,
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)

from service.messages import Event, Status
from service.queue.leases import Lease
from service.serving import WorkerInfo, WorkerState

PROMPT = {"prompt": "a red circle"}


@pytest.mark.parametrize(
    "changed", [{"seed": 2}, {"n": 2}, {"steps": 5}, {"negative_prompt": "blue"}, {"format": "webp"}, {"deadline_s": 9}]
)
def test_a_key_stands_for_the_whole_request(
    gateway: RunningGateway, worker: TinyWorker, changed: dict[str, object]
) -> None:
    headers = {"Idempotency-Key": "key", "Prefer": "respond-async"}
    asked = PROMPT | {"seed": 1}
    first, again = [gateway.http.post("/generate", json=asked, headers=headers) for _ in range(2)]
    assert again.json()["id"] == first.json()["id"]
    other = gateway.http.post("/generate", json=asked | changed, headers=headers)
    assert other.status_code == 422
    assert other.json()["errors"][0]["field"] == "Idempotency-Key"


@pytest.fixture
def lease(gateway: RunningGateway, worker: TinyWorker) -> Lease:
    """A job that the test itself reports on."""
    worker.stop()
    gateway.start()
    [taken] = worker.background.call(worker.queue.take(MODEL.name, "test", 1, 0))
    assert isinstance(taken, Lease)
    return taken


def report(worker: TinyWorker, lease: Lease, *evaluations: int) -> None:
    for evaluation in evaluations:
        event = Event(evaluation=evaluation, evaluations=8, committed=evaluation / 8, status=Status.RUNNING)
        worker.background.call(worker.queue.progress(lease, event, None))


def events_in(lines: Any, count: int) -> list[int]:
    """The evaluations of the next events of a stream."""
    data = (json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: "))
    return [next(data)["evaluation"] for _ in range(count)]


def test_a_live_stream_that_reads_several_events_at_once_repeats_none(
    gateway: RunningGateway, worker: TinyWorker, lease: Lease
) -> None:
    report(worker, lease, 1, 2, 3)
    with gateway.http.stream("GET", f"/jobs/{lease.job.id}/events") as response:
        lines = response.iter_lines()
        assert events_in(lines, 3) == [1, 2, 3]
        report(worker, lease, 4, 5)
        assert events_in(lines, 2) == [4, 5]
        with gateway.http.stream("GET", f"/jobs/{lease.job.id}/events") as later:
            assert events_in(later.iter_lines(), 5) == [1, 2, 3, 4, 5], "what the first was told, is kept once"
        worker.background.call(worker.queue.cancelled(lease))
        assert [line for line in lines if line.startswith("event:")] == ["event: cancelled"]


@pytest.mark.parametrize("states", [("ready", "unready"), ("unready", "ready"), ("draining", "ready")])
def test_a_ready_workers_word_about_the_model_counts(
    gateway: RunningGateway, worker: TinyWorker, states: tuple[WorkerState, WorkerState]
) -> None:
    """Whatever their names: registrations come in the order of these."""
    gateway.gateway.directory.max_age_s = 0
    worker.background.call(worker.queue.unregister(worker.name))
    for name, state in zip(("a", "b"), states, strict=True):
        model = MODEL.model_copy(update={"description": state})
        worker.background.call(worker.queue.register(WorkerInfo(id=name, model=model, state=state), 60_000))
    (card,) = gateway.http.get("/v1/models").json()["data"]
    assert card["description"] == "ready"
