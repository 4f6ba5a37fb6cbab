"""Deadlines that are met with fewer evaluations: real processes, a real Redis, a slow fake of Triton."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fleet import Fleet, serving
from gateway_harness import until
from test_worker_brownout import make_job
from test_worker_metrics import Watched

from service.messages import Status
from service.queue import keys

DELAY_S = 0.2
PROMPT = {"prompt": "a red circle", "seed": 3, "steps": 40, "tokens_per_step": 2}


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(redis_url, tmp_path)
    fleet.triton.delay_s = DELAY_S
    yield fleet
    fleet.close()


def post(client: httpx.Client, **fields: object) -> str:
    """Start a job; returns its id."""
    answer = client.post("/generate", json=PROMPT | fields, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def ended(client: httpx.Client, job_id: str) -> dict[str, Any]:
    def over() -> dict[str, Any] | None:
        answer: dict[str, Any] = client.get(f"/jobs/{job_id}").json()
        return answer if answer["status"] in ("succeeded", "failed") else None

    answer: dict[str, Any] = until(over, limit_s=60)
    return answer


def test_a_deadline_that_would_pass_is_met_with_fewer_evaluations(fleet: Fleet) -> None:
    """Three of 40 evaluations, 8 s, share their calls: one must be done in 5 s, one may be adapted to it, one has time.

    What the adapted one says of itself makes the same picture again.
    """
    worker = Watched(fleet)
    assert worker.value("vqd_adapted_jobs_total") == 0
    with serving(fleet) as client:
        strict, patient = post(client, deadline_s=5), post(client, seed=4)
        began_s = time.monotonic()
        adapted = post(client, deadline_s=5, adapt=True)
        answer = ended(client, adapted)
        assert answer["status"] == "succeeded", answer
        assert time.monotonic() - began_s < 5
        assert ended(client, strict)["error_type"] == "urn:vqd:problem:deadline-passed"
        assert worker.value("vqd_adapted_jobs_total") == 1

        used = answer["parameters"]
        assert 10 <= used["steps"] == answer["evaluations"] == answer["evaluation"] < 40
        assert answer["warnings"] == [
            f"tokens_per_step: {used['tokens_per_step']} in place of 2, to meet the deadline",
            f"steps: {used['steps']} in place of 40, to meet the deadline",
        ]
        assert max(call.rows for call in fleet.triton.calls if call.model == "diffusion_step") == 3

        full = ended(client, patient)
        assert (full["evaluations"], full["parameters"]["steps"], full["warnings"]) == (40, 40, [])

        fleet.triton.delay_s = 0
        asked = {name: used[name] for name in ("steps", "tokens_per_step", "seed")}
        again = client.post("/generate", json=PROMPT | asked).json()
        assert again["images"][0]["tokens_sha256"] == answer["images"][0]["tokens_sha256"]
        assert again["parameters"] == used


def test_a_picture_says_so_in_its_headers(fleet: Fleet) -> None:
    fleet.start_worker()
    with serving(fleet) as client:
        fields = PROMPT | {"steps": 16, "tokens_per_step": 4, "deadline_s": 3.5, "adapt": True}
        answer = client.post("/generate", json=fields, headers={"Accept": "image/png"})
        assert answer.status_code == 200, answer.text
        assert "to meet the deadline" in answer.headers["X-Vqd-Warnings"]
        assert '"steps":16' not in answer.headers["X-Vqd-Parameters"]


def test_what_has_time_enough_is_made_as_it_was_asked_for(fleet: Fleet) -> None:
    worker = Watched(fleet)
    view = fleet.wait(fleet.enqueue(make_job(deadline_s=60.0, steps=8, tokens_per_step=8)))
    assert (view.evaluations, view.job.parameters.steps) == (8, 8)
    assert worker.value("vqd_adapted_jobs_total") == 0


def test_an_adapted_job_whose_worker_dies_goes_on_with_the_same_plan(fleet: Fleet) -> None:
    """Its tokens are those of the same parameters asked for outright, and its progress goes from 0 to 1."""
    fleet.triton.delay_s = 0.5
    fleet.start_worker()
    job = fleet.enqueue(make_job(deadline_s=30.0, seed=5, steps=60, tokens_per_step=1))
    fleet.wait_evaluation(job, 2)
    until(lambda: fleet.ask(lambda queue: queue.redis.hexists(keys.job(job), "checkpoint")))
    fleet.workers[0].kill()
    fleet.triton.delay_s = 0.0
    fleet.start_worker()
    view = fleet.wait(job)
    result, used = view.result, view.job.parameters
    assert result is not None
    assert view.attempts == 2
    assert not result.started_again
    assert 64 / (used.tokens_per_step or 1) <= used.steps < 60
    assert view.evaluation == view.evaluations == result.evaluations
    assert fleet.evaluations_run() <= view.evaluations + 3
    assert len(result.warnings) == 2
    events = [event for _, event in fleet.ask(lambda queue: queue.events(job))]
    assert {event.evaluations for event in events} == {view.evaluations}
    assert (events[-1].evaluation, events[-1].status) == (view.evaluations, Status.SUCCEEDED)

    outright = fleet.enqueue(make_job("outright", deadline_s=None, adapt=False, **used.model_dump()))
    assert fleet.wait(outright).job.parameters == used
    assert fleet.tokens(outright) == fleet.tokens(job)
