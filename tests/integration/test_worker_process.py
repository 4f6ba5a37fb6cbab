"""A worker process and its queue: whose turn it is, what it holds, what it says while it comes and goes."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fleet import SHAPES, Fleet, delivery_counts
from gateway_harness import DEFAULTS, MODEL, until

from service.messages import Job, Priority, Status
from service.queue import keys
from service.testing.fake_triton import Call, encode
from service.triton.contract import Array

LEASE_MS = 400
INTERACTIVE = keys.stream(MODEL.name, Priority.INTERACTIVE.value)


@pytest.fixture
def fleet(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> Iterator[Fleet]:
    """With settings of the test's own, if it has any."""
    fleet = Fleet(redis_url, tmp_path, **{"lease_ms": LEASE_MS, **getattr(request, "param", {})})
    yield fleet
    fleet.close()


def calls(fleet: Fleet, model: str) -> list[Call]:
    return [call for call in fleet.triton.calls if call.model == model]


@pytest.mark.parametrize("fleet", [{"max_rows": 1}], indirect=True)
def test_a_worker_gives_the_batch_class_its_share_and_no_more(fleet: Fleet) -> None:
    """One place, and both classes wait for it: one job in four is of the batch class."""
    jobs = [fleet.submit(seed=i, steps=4, priority=priority) for i, priority in enumerate([*Priority] * 8)]
    fleet.start_worker()
    order = sorted((fleet.wait(job) for job in jobs), key=lambda view: view.started_ms or 0)
    # Two; a take that found nothing may have shifted one into or out of the first eight.
    assert 1 <= sum(view.job.priority is Priority.BATCH for view in order[:8]) <= 3
    assert {call.rows for call in calls(fleet, "diffusion_step")} == {1}, "more rows were held than there is room for"


def test_4_a_job_whose_call_takes_several_leases_is_not_stolen(fleet: Fleet) -> None:
    """Nothing is to be told meanwhile: only renewals keep it from the idle worker."""
    for _ in range(2):
        fleet.start_worker()
    fleet.triton.delay_s = 0.05
    job = fleet.submit(seed=1, steps=8)
    fleet.wait_evaluation(job, 1)
    fleet.triton.hang()
    counts: set[int] = set()
    until_s = time.monotonic() + 3 * LEASE_MS / 1000
    while time.monotonic() < until_s:
        counts.update(fleet.ask(lambda queue: delivery_counts(queue, INTERACTIVE)))
        time.sleep(0.02)
    fleet.background.loop.call_soon_threadsafe(fleet.triton.resume)
    view = fleet.wait(job)
    assert counts == {1}
    assert (view.attempts, view.epoch) == (1, 1)
    assert fleet.evaluations_run() == 8


def test_a_worker_is_known_as_long_as_it_lives_and_no_longer(fleet: Fleet) -> None:
    worker = fleet.start_worker()
    until_s = time.monotonic() + 1.2  # more than the pause between two registrations
    while time.monotonic() < until_s:
        assert fleet.ready(worker.pid)
        time.sleep(0.02)
    worker.terminate()
    assert worker.wait(10) == 0
    assert fleet.ask(lambda queue: queue.workers()) == []


def submit_text(fleet: Fleet, job_id: str, prompt: str, negative: str | None = None) -> str:
    parameters = DEFAULTS.model_copy(update={"steps": 4})
    job = Job(
        id=job_id,
        model=MODEL.name,
        prompt=prompt,
        negative_prompt=negative,
        parameters=parameters,
        priority=Priority.INTERACTIVE,
    )
    return fleet.ask(lambda queue: queue.enqueue(job, 4))[0]


def test_each_job_is_drawn_from_its_own_prompts(fleet: Fleet) -> None:
    """Encoded together: texts of one to four words, which the fake tells apart by how many there are."""
    jobs = [submit_text(fleet, "short", "a", "a b"), submit_text(fleet, "long", "a b c", "a b c d")]
    fleet.start_worker()
    for job in jobs:
        fleet.wait(job)
    shared = next(call for call in calls(fleet, "diffusion_step") if call.rows == 2)
    drawn = shared.inputs["contexts"]
    for prompt, negative in ((1, 2), (3, 4)):
        wanted = states(prompt), states(negative)
        assert sum((p == wanted[0]).all() and (n == wanted[1]).all() for p, n in drawn) == 1


def states(words: int) -> Array:
    """What the fake's encoder gives for the first so many words of the alphabet."""
    ids = np.zeros((1, SHAPES.text_positions), np.int32)
    ids[0, :words] = 1 + np.arange(words)
    return encode({"input_ids": ids, "attention_mask": ids}, SHAPES)["states"][0]


def test_a_cancel_heard_while_its_prompt_is_encoded_leaves_the_worker_at_work(fleet: Fleet) -> None:
    worker = fleet.start_worker()
    fleet.triton.calls.clear()
    fleet.triton.hang()
    job = fleet.submit(seed=1, steps=4)
    until(lambda: calls(fleet, "text_encoder"))
    fleet.ask(lambda queue: queue.cancel(job))
    fleet.wait(job, Status.CANCELLED)
    fleet.background.loop.call_soon_threadsafe(fleet.triton.resume)
    fleet.wait(fleet.submit(seed=2, steps=4))
    assert worker.poll() is None
    assert fleet.evaluations_run() == 4


def test_a_prompt_that_is_too_long_fails_alone_and_names_the_field(fleet: Fleet) -> None:
    jobs = [submit_text(fleet, "good", "a"), submit_text(fleet, "long", "a " * (MODEL.text_positions + 1))]
    worker = fleet.start_worker()
    fleet.wait(jobs[0])
    failure = fleet.wait(jobs[1], Status.FAILED).failure
    assert failure is not None
    assert failure.field == "prompt"
    assert worker.poll() is None


def test_a_worker_without_triton_takes_nothing_and_is_back_soon(fleet: Fleet) -> None:
    """It asks more often than one that hears from Triton anyway."""
    worker = fleet.start_worker()
    first = fleet.submit(seed=1, steps=50)
    fleet.wait_evaluation(first, 1)
    fleet.background.call(fleet.triton.stop())
    until(lambda: not fleet.ready(worker.pid))
    time.sleep(0.6)  # a take that began before waits no longer for a job
    waiting = fleet.submit(seed=2, steps=4)
    until_s = time.monotonic() + 0.5
    while time.monotonic() < until_s:
        assert (fleet.view(waiting).status, fleet.view(waiting).epoch) == (Status.QUEUED, 0)
        time.sleep(0.02)
    fleet.background.call(fleet.triton.start())
    until(lambda: fleet.ready(worker.pid), limit_s=3)
    assert fleet.wait(waiting).epoch == 1
    fleet.wait(first)
