"""Promise 15 by real processes: what a key that floods costs another key's single request."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import Fleet, gather
from gateway_harness import until

from service.messages import JobView, Priority, Status
from service.queue.account import Account

IN_FLIGHT = 4
FLOOD, POLITE = Account("flood"), Account("polite")


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(redis_url, tmp_path, max_rows=IN_FLIGHT, max_batch=IN_FLIGHT)
    fleet.triton.delay_s = 0.01
    yield fleet
    fleet.close()


def views_of(fleet: Fleet, jobs: list[str]) -> list[JobView]:
    return gather(fleet, jobs, lambda queue, job: queue.view(job))


def begun(fleet: Fleet, jobs: list[str]) -> list[str]:
    return [view.job.id for view in views_of(fleet, jobs) if view.status is not Status.QUEUED]


@pytest.mark.parametrize("priority", Priority)
def test_15_a_single_request_waits_for_no_more_than_the_work_in_flight(fleet: Fleet, priority: Priority) -> None:
    fleet.start_worker()
    fleet.account = FLOOD
    flood = [fleet.submit(seed, job_id=f"a{seed}", priority=priority) for seed in range(60)]
    until(lambda: begun(fleet, flood))
    fleet.account = POLITE
    for round_ in range(3):
        polite = fleet.submit(round_, job_id=f"b{round_}", priority=priority)
        done = fleet.wait(polite)
        # By Redis's clock: those of the flood that began after it had come, and before it began.
        overtook = [
            view.job.id
            for view in views_of(fleet, flood)
            if view.started_ms and done.started_ms and done.job.created_ms < view.started_ms < done.started_ms
        ]
        assert len(overtook) <= 1, "all that may go first is what the worker was about to read"
    assert len(begun(fleet, flood)) < len(flood), "the flood was over: this has shown nothing"
