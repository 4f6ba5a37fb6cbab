"""A worker process and its queue: whose turn it is, and calls that are longer than a lease."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import Fleet, delivery_counts
from gateway_harness import MODEL

from service.messages import Priority
from service.queue import keys

LEASE_MS = 400
INTERACTIVE = keys.stream(MODEL.name, Priority.INTERACTIVE.value)


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(redis_url, tmp_path, lease_ms=LEASE_MS, max_rows=1)
    yield fleet
    fleet.close()


def test_a_worker_gives_the_batch_class_its_share_and_no_more(fleet: Fleet) -> None:
    """One place, and both classes wait for it: one job in four is of the batch class."""
    jobs = [fleet.submit(seed=i, steps=4, priority=priority) for i, priority in enumerate([*Priority] * 8)]
    fleet.start_worker()
    order = sorted((fleet.wait(job) for job in jobs), key=lambda view: view.started_ms or 0)
    assert sum(view.job.priority is Priority.BATCH for view in order[:8]) == 2


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
