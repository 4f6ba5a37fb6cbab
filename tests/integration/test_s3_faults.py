"""S3 storage that fails, is slow or comes too late: no job is lost for it, and none gets another's picture."""

import signal
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from gateway_harness import until
from redis_groups import Line
from s3_support import BUCKET, LEASE_MS, SECRET, Service

from service.messages import Status
from service.queue import keys

Build = Callable[..., Service]


@pytest.fixture
def build(redis_url: str, tmp_path: Path) -> Iterator[Build]:
    """For what does harm: ``serve`` says whether a worker and a gateway are to run already."""
    with ExitStack() as stack:

        def make(serve: bool = True, **environment: object) -> Service:
            made = Service(redis_url, tmp_path, stack, **environment)
            if serve:
                made.serve(stack)
            return made

        yield make


@pytest.mark.parametrize("fault", ["is down", "knows another secret"])
def test_what_the_storage_does_not_take_goes_to_redis(build: Build, fault: str) -> None:
    """And what it has comes back with it."""
    service = build(s3_timeout_s=2)
    before = service.ask(seed=1)["id"]
    service.s3.stop()
    if fault == "knows another secret":
        service.s3.secret = "another"
        service.s3.start()
    first, second = service.ask(seed=2, n=2), service.ask(seed=3)
    assert [service.in_redis(job["id"]) for job in (first, second)] == [2, 1]
    assert service.image(first["id"], 1).status_code == 200
    refused = service.image(before)
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:vqd:problem:storage-unavailable")
    assert refused.headers["Retry-After"] == "1"
    assert service.metric("vqd_storage_errors_total") == 1
    assert service.http.get("/readyz").status_code == 200, "jobs are still made"
    told = [line for line in service.fleet.log_lines("worker-1") if line["level"] == "ERROR"]
    assert [line["message"].partition(" s: ")[0] for line in told] == ["pictures go to Redis for the next 10"]
    assert SECRET not in service.fleet.logs() + (service.fleet.folder / "gateway.log").read_text()
    if fault == "knows another secret":
        assert "SignatureDoesNotMatch" in told[0]["message"]
        service.s3.stop()
        service.s3.secret = SECRET
    service.s3.start()
    assert service.image(before).status_code == 200


def test_a_slow_storage_holds_up_nobody_and_costs_no_lease(build: Build) -> None:
    """It takes three leases, beside a worker that would take the job over."""
    service = build(s3_timeout_s=30)
    kept = service.ask(seed=1)["id"]
    service.redis.hset(keys.images(kept), "0", b"in Redis")
    service.fleet.start_worker()
    service.s3.process.send_signal(signal.SIGSTOP)
    slow = service.fleet.submit(seed=2, steps=4)
    service.fleet.wait_evaluation(slow, 4)
    until_s = time.monotonic() + 3 * LEASE_MS / 1000
    until(lambda: time.monotonic() > until_s)
    assert service.image(kept).content == b"in Redis"
    view = service.fleet.view(slow)
    assert (view.status, view.attempts, view.epoch) == (Status.RUNNING, 1, 1)
    service.s3.process.send_signal(signal.SIGCONT)
    view = service.fleet.wait(slow)
    assert (view.attempts, len(service.stored_keys(slow)), service.in_redis(slow)) == (1, 1, 0)


def test_the_storage_is_asked_for_all_pictures_at_once_and_redis_has_the_others(build: Build) -> None:
    service = build(serve=False, s3_timeout_s=30)
    service.fleet.start_worker()
    with Line(service.s3.port) as line, ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        service.fleet.environment |= service.s3.environment(line.port)
        service.serve(stack, worker=False)
        met = len(line.serving)
        line.cut()
        asked = pool.submit(service.ask, {"Idempotency-Key": "mine"}, n=4)
        until(lambda: len(line.serving) >= met + 3)  # and one that it had
        line.heal()
        first = asked.result(15)
        service.redis.hset(keys.images(first["id"]), "1", b"in Redis")
        told = [one["b64_json"] for one in first["images"]]
        told[1] = b64encode(b"in Redis").decode()
        assert [one["b64_json"] for one in service.ask({"Idempotency-Key": "mine"}, n=4)["images"]] == told


def on_the_way(service: Service, line: Line) -> str:
    """A job whose picture leaves its worker and arrives nowhere, until the line is healed."""
    line.cut()
    so_far = line.read
    job = service.fleet.submit(seed=2, steps=4)
    until(lambda: line.read > so_far)
    return job


def test_a_worker_that_lost_its_lease_changes_nothing(build: Build) -> None:
    """It is stopped while its picture is on the way; another ends the job; then the picture arrives."""
    service = build(serve=False, s3_timeout_s=30)
    fleet, s3 = service.fleet, service.s3
    with Line(s3.port) as line:
        fleet.environment |= s3.environment(line.port)
        zombie = fleet.start_worker()
        job = on_the_way(service, line)
        zombie.send_signal(signal.SIGSTOP)
        fleet.environment |= s3.environment()
        fleet.start_worker()
        before = fleet.wait(job)
        assert service.stored_keys(job) == s3.objects() == [f"vqd/a/{job}/2/0.png"]
        line.heal()
        zombie.send_signal(signal.SIGCONT)
        until(lambda: fleet.ask(lambda queue: queue.fenced_writes()) >= 1)
        until(lambda: f"vqd/a/{job}/1/0.png" in s3.objects())
    assert fleet.view(job) == before
    assert service.in_redis(job) == 0
    assert zombie.poll() is None


@pytest.mark.parametrize(("end", "status", "attempts"), [(signal.SIGKILL, -signal.SIGKILL, 2), (signal.SIGTERM, 0, 1)])
def test_a_job_whose_worker_ends_while_it_stores_is_stored_by_another(
    build: Build, end: signal.Signals, status: int, attempts: int
) -> None:
    """Of a dead worker it is a suspect, whose trial is over when it is decoded, and not when it is stored. A worker
    that stops waits for a while and hands it over."""
    service = build(serve=False, s3_timeout_s=30)
    fleet, s3 = service.fleet, service.s3
    with Line(s3.port) as line:
        fleet.environment |= s3.environment(line.port)
        first = fleet.start_worker()
        job = on_the_way(service, line)
        first.send_signal(end)
        assert first.wait(15) == status
        assert all(line["level"] in ("INFO", "WARNING") for line in fleet.log_lines("worker-1"))
        fleet.environment |= s3.environment()
        second = fleet.start_worker()
        assert fleet.wait(job).attempts == attempts
        assert service.stored_keys(job) == s3.objects() == [f"vqd/a/{job}/2/0.png"]
    fleet.wait(fleet.submit(seed=3, steps=4))
    assert second.poll() is None


def test_a_job_whose_picture_is_on_the_way_needs_no_triton(build: Build) -> None:
    """It is lost in another job's call, who is handed over; what is made is not made again."""
    service = build(serve=False, s3_timeout_s=30)
    fleet, s3 = service.fleet, service.s3
    with Line(s3.port) as line:
        fleet.environment |= s3.environment(line.port)
        fleet.start_worker()
        storing = on_the_way(service, line)
        fleet.background.call(fleet.triton.stop())
        other = fleet.submit(seed=3, steps=4)
        until(lambda: "not ready" in fleet.logs(), limit_s=30)
        fleet.wait(other, Status.QUEUED)
        assert fleet.view(storing).status is Status.RUNNING
        line.heal()
        view = fleet.wait(storing)
        assert (view.attempts, view.epoch) == (1, 1)
        assert service.stored_keys(storing) == s3.objects() == [f"vqd/a/{storing}/1/0.png"]


def test_a_storage_that_is_away_at_the_start_stops_nobody(build: Build) -> None:
    service = build(serve=False, s3_timeout_s=2)
    service.s3.stop()
    with ExitStack() as stack:
        service.serve(stack)
        job = service.ask(seed=1)["id"]
        assert (service.in_redis(job), service.image(job).status_code) == (1, 200)
    warned = [line for line in service.fleet.log_lines("gateway") if line["level"] == "WARNING"]
    assert f"VQD_S3_BUCKET={BUCKET} is not known to be of use" in warned[0]["message"]
