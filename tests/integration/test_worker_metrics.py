"""What a worker says of itself while jobs come, end, fail and move: real processes and Redis, the fake of Triton."""

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fleet import Fleet
from gateway_harness import until
from prometheus_client.parser import text_string_to_metric_families

from service.messages import Status
from service.sockets import free_port

LEASE_MS = 1000
PAUSE_S = 0.05


class Watched:
    """A worker with a metrics port; each has its own."""

    def __init__(self, fleet: Fleet) -> None:
        self.url = f"http://127.0.0.1:{free_port()}/metrics"
        fleet.environment["VQD_WORKER_METRICS_PORT"] = self.url.split(":")[2].split("/")[0]
        self.process = fleet.start_worker()

    def value(self, name: str, **labels: str) -> float:
        families = text_string_to_metric_families(httpx.get(self.url).text)
        samples = [sample for family in families for sample in family.samples]
        return next(s.value for s in samples if s.name == name and s.labels == labels)


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(redis_url, tmp_path, lease_ms=LEASE_MS)
    fleet.triton.delay_s = PAUSE_S
    yield fleet
    fleet.close()


def test_busy_is_the_time_with_a_job_held_and_model_the_part_of_it_in_triton(fleet: Fleet) -> None:
    worker = Watched(fleet)
    assert worker.value("vqd_triton_up") == 1
    assert worker.value("vqd_busy_seconds_total") == worker.value("vqd_model_seconds_total") == 0
    view = fleet.wait(fleet.submit(steps=8))
    assert view.finished_ms
    assert view.started_ms
    held_s = (view.finished_ms - view.started_ms) / 1000
    until(lambda: worker.value("vqd_rows_in_flight") == 0)
    busy, model = worker.value("vqd_busy_seconds_total"), worker.value("vqd_model_seconds_total")
    calls = 1 + 8 + 1
    assert calls * PAUSE_S <= model <= busy
    assert abs(busy - held_s) < 0.2
    assert worker.value("vqd_step_seconds_count") == 8
    assert worker.value("vqd_queue_wait_seconds_count") == 1


def test_long_work_is_counted_while_it_lasts(fleet: Fleet) -> None:
    worker = Watched(fleet)
    fleet.triton.delay_s = 3
    fleet.submit()
    until(lambda: worker.value("vqd_busy_seconds_total") > 1)
    assert worker.value("vqd_encode_seconds_count") == 0, "the first call has not ended yet"
    assert worker.value("vqd_model_seconds_total") > 0.9


def test_a_deadline_is_a_failure_and_no_fencing(fleet: Fleet) -> None:
    worker = Watched(fleet)
    fleet.wait(fleet.submit(steps=60, deadline_ms=500), Status.FAILED)
    until(lambda: worker.value("vqd_jobs_total", outcome="failed") == 1)
    assert worker.value("vqd_fenced_writes_total") == 0


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("model", ["diffusion_step", "image_decoder"])
def test_a_cancel_heard_during_a_call_is_no_fencing(fleet: Fleet, model: str, fails: bool) -> None:
    worker = Watched(fleet)
    fleet.triton.calls.clear()
    if fails:
        fleet.triton.fail_next(model=model)
    one_at_a_time = fleet.triton.locks[model]
    fleet.background.call(one_at_a_time.acquire())  # the call lasts until the cancel was heard
    job = fleet.submit(steps=1)
    until(lambda: any(call.model == model for call in fleet.triton.calls))
    fleet.ask(lambda queue: queue.cancel(job))
    fleet.wait(job, Status.CANCELLED)
    fleet.background.loop.call_soon_threadsafe(one_at_a_time.release)
    fleet.wait(fleet.submit(seed=1, steps=1))  # its calls follow the one that the cancel overtook
    assert worker.value("vqd_jobs_total", outcome="cancelled") == 1
    assert worker.value("vqd_jobs_total", outcome="failed") == worker.value("vqd_fenced_writes_total") == 0


def test_a_job_that_moves_is_counted_where_it_goes_on(fleet: Fleet) -> None:
    first = Watched(fleet)
    job = fleet.submit(steps=60)
    until(lambda: first.value("vqd_checkpoints_total") >= 2)
    assert first.value("vqd_rows_in_flight") == 1
    first.process.send_signal(signal.SIGSTOP)
    second = Watched(fleet)
    fleet.wait(job)
    assert second.value("vqd_resumes_total") == 1
    assert second.value("vqd_queue_wait_seconds_count") == 0, "its wait was over when the first worker took it"
    assert second.value("vqd_jobs_total", outcome="succeeded") == second.value("vqd_images_total") == 1
    first.process.send_signal(signal.SIGCONT)
    until(lambda: first.value("vqd_fenced_writes_total") == 1)


def test_the_metric_of_triton_follows_triton(fleet: Fleet) -> None:
    worker = Watched(fleet)
    fleet.background.call(fleet.triton.stop())
    fleet.submit()
    until(lambda: worker.value("vqd_triton_up") == 0, limit_s=20)
    assert worker.value("vqd_triton_errors_total", kind="unavailable") >= 1
    until(lambda: worker.value("vqd_handovers_total") == 1, limit_s=20)
    fleet.background.call(fleet.triton.start())
    until(lambda: worker.value("vqd_triton_up") == 1, limit_s=20)
