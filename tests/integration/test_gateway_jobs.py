"""Jobs after they were accepted: state, events, cancellation."""

import json
import time
from typing import Any

import httpx
import pytest
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)

from service.gateway import sse


def read_events(gateway: RunningGateway, job_id: str, after: str = "") -> list[dict[str, Any]]:
    """All frames of the stream until the server ends it."""
    response = gateway.http.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": after} if after else {})
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"].startswith("text/event-stream")
    return [parse_frame(frame) for frame in response.text.split("\n\n") if "data:" in frame]


def parse_frame(frame: str) -> dict[str, Any]:
    fields = dict(line.split(": ", 1) for line in frame.splitlines())
    return {"id": fields["id"], "event": fields["event"], **json.loads(fields["data"])}


def test_events_of_a_finished_job(gateway: RunningGateway, worker: TinyWorker) -> None:
    events = read_events(gateway, gateway.ask().json()["id"])
    assert [event["event"] for event in events] == ["progress", "progress", "succeeded"]
    assert [event["evaluation"] for event in events][:2] == [1, 2]
    assert len({event["id"] for event in events}) == 3


def test_events_resume_without_gap_or_repeat(gateway: RunningGateway, worker: TinyWorker) -> None:
    job_id = gateway.ask().json()["id"]
    events = read_events(gateway, job_id)
    for seen, event in enumerate(events[:-1], start=1):
        assert read_events(gateway, job_id, after=event["id"]) == events[seen:]
    over = gateway.http.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": events[-1]["id"]})
    assert over.status_code == 204
    wrong = gateway.http.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": "latest"})
    assert wrong.status_code == 422
    assert "(allowed: the id of an event, such as 12-0)" in wrong.json()["detail"]


def test_events_arrive_while_the_job_runs(gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.hold.set()
    job_id = gateway.start()
    with gateway.http.stream("GET", f"/jobs/{job_id}/events") as response:
        lines = response.iter_lines()
        assert next(line for line in lines if line.startswith("event:")) == "event: progress"
        worker.hold.clear()
        rest = [line for line in lines if line.startswith("event:")]
    assert rest == ["event: progress", "event: succeeded"]


def test_a_cancelled_job_ends_its_stream(gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.hold.set()
    job_id = gateway.start()
    with gateway.http.stream("GET", f"/jobs/{job_id}/events") as response:
        until(lambda: worker.taken)
        gateway.http.delete(f"/jobs/{job_id}")
        assert [line for line in response.iter_lines() if line.startswith("event:")][-1] == "event: cancelled"


def test_heartbeats(gateway: RunningGateway, worker: TinyWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "HEARTBEAT_S", 0.1)
    worker.hold.set()
    job_id = gateway.start()
    until(lambda: worker.taken)
    started_s = time.monotonic()
    with gateway.http.stream("GET", f"/jobs/{job_id}/events") as response:
        beats = (line for line in response.iter_lines() if line.startswith(":"))
        for _ in range(3):
            next(beats)
        assert time.monotonic() - started_s >= 0.2
        worker.hold.clear()


def test_a_reader_that_leaves_is_forgotten(gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.hold.set()
    job_id = gateway.start()
    with gateway.http.stream("GET", f"/jobs/{job_id}/events") as response:
        lines = response.iter_lines()  # held: who drops it, leaves
        next(lines)
        until(lambda: job_id in gateway.gateway.notifier.watches)
    until(lambda: job_id not in gateway.gateway.notifier.watches)
    worker.hold.clear()


def test_a_running_job_and_its_cancellation(gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.hold.set()
    job_id = gateway.start(n=2)
    running = until(lambda: (job := gateway.job(job_id))["evaluation"] == 1 and job)
    assert (running["status"], running["evaluations"], running["committed"]) == ("running", 8, 0.25)
    assert gateway.http.delete(f"/jobs/{job_id}").status_code == 200
    until(lambda: gateway.job(job_id)["status"] == "cancelled")
    again = gateway.http.delete(f"/jobs/{job_id}")
    assert (again.status_code, again.json()["type"]) == (409, "urn:vqd:problem:conflict")


def test_a_queued_job_is_cancelled_at_once(gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.stop()
    job_id = gateway.start()
    response = gateway.http.delete(f"/jobs/{job_id}")
    assert (response.status_code, response.json()["status"]) == (200, "cancelled")


def test_a_finished_job_cannot_be_cancelled(gateway: RunningGateway, worker: TinyWorker) -> None:
    job_id = gateway.ask().json()["id"]
    assert gateway.http.delete(f"/jobs/{job_id}").status_code == 409
    assert gateway.job(job_id)["status"] == "succeeded"


def test_models(gateway: RunningGateway, worker: TinyWorker) -> None:
    card = gateway.http.get("/v1/models").json()["data"][0]
    assert (card["id"], card["licence"]) == ("shapes", "MIT")
    assert card["ranges"]["guidance_scale"] == {"minimum": 0.0, "maximum": 20.0}
    assert card["defaults"]["steps"] == 4
    assert "seed" not in card["defaults"]
    assert card["shapes"]["image_width"] == 64
    assert (card["dtype"], card["same_in_any_batch"]) == ("fp32", True)


def test_the_only_connection_may_come_and_go(gateway: RunningGateway, worker: TinyWorker) -> None:
    """A reader cut off in the middle of the stream sees the rest after it reconnects."""
    worker.hold.set()
    job_id = gateway.start()
    with httpx.Client(base_url=gateway.url) as cut, cut.stream("GET", f"/jobs/{job_id}/events") as response:
        seen = next(line for line in response.iter_lines() if line.startswith("id:"))
    worker.hold.clear()
    rest = read_events(gateway, job_id, after=seen.removeprefix("id: "))
    assert [event["event"] for event in rest] == ["progress", "succeeded"]
