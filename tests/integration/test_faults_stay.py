"""A bad record, job, call or death stays where it is. Real workers and Redis, Triton's fake with real sicknesses."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from fleet import SHAPES, Fleet
from gateway_harness import MODEL, until

from service.messages import Priority, Status
from service.queue import keys
from service.sockets import free_port
from service.testing.fake_triton import DIES, STICKY, UNLOADING, Call, Failure, mask_left, nan_purity

Build = Callable[..., Fleet]
FLAWED = 7.5
"""The guidance scale by which the fake knows the job that it does not survive."""
COMPANIONS = 4


@pytest.fixture
def build(redis_url: str, tmp_path: Path) -> Iterator[Build]:
    fleets = []

    def start(**options: object) -> Fleet:
        fleets.append(Fleet(redis_url, tmp_path / str(len(fleets)), **options))
        return fleets[-1]

    yield start
    for fleet in fleets:
        fleet.close()


def flawed_step(call: Call) -> bool:
    return call.model == "diffusion_step" and bool((call.inputs["weights"][..., 0] == FLAWED).any())


def flawed_prompt(call: Call) -> bool:
    """Of five words, where the others have three."""
    return call.model == "text_encoder" and bool((call.inputs["attention_mask"].sum(1) == 5).any())


POISONS = {
    "kills Triton in a step": (flawed_step, DIES),
    "kills Triton in the encoder": (flawed_prompt, DIES),
    "is answered with an error by the encoder": (flawed_prompt, Failure(grpc.StatusCode.INTERNAL, "no")),
    "is answered with an error by a step": (flawed_step, Failure(grpc.StatusCode.INTERNAL, "no")),
    "is answered with nonsense": (flawed_step, nan_purity),
}


@pytest.mark.parametrize("kind", POISONS)
def test_7_a_poison_job_fails_alone_among_companions(build: Build, kind: str) -> None:
    """All are admitted together by one worker; a second one finds what is handed over."""
    fleet = build(max_attempts=2, call_target_ms=1)
    fleet.triton.fail_when(*POISONS[kind])
    fleet.triton.restart_s = 0.05
    companions = [fleet.submit(seed=seed, steps=6) for seed in range(COMPANIONS)]
    poison = fleet.submit(seed=99, steps=6, prompt="one two three four five", guidance_scale=FLAWED)
    fleet.start_worker()
    fleet.start_worker()
    view = fleet.wait(poison, Status.FAILED, limit_s=60)
    assert view.failure is not None
    assert view.failure.kind == ("given-up" if POISONS[kind][1] == DIES else "inference-failed")
    for job in companions:
        fleet.wait(job)
    if POISONS[kind][1] == DIES:
        assert fleet.triton.deaths <= 3 * (1 + 2), "one among companions and two alone, each with its retries"


def test_7_a_grid_that_is_never_finished_is_no_picture(build: Build) -> None:
    fleet = build()
    fleet.triton.fail_when(flawed_step, mask_left(SHAPES.codes))
    fleet.start_worker()
    view = fleet.wait(fleet.submit(steps=4, guidance_scale=FLAWED), Status.FAILED)
    assert "masked positions" in str(view.failure)


def test_7_a_job_that_kills_its_worker_fails_alone(build: Build) -> None:
    """Whoever computes it is killed, as by the kernel for want of memory."""
    fleet = build(max_attempts=2, lease_ms=300, scan_ms=100)
    fleet.triton.delay_s = 0.05
    poison = fleet.submit(seed=99, steps=8, guidance_scale=FLAWED)
    companions = [fleet.submit(seed=seed, steps=8) for seed in range(COMPANIONS)]
    killed = 0
    give_up_s = time.monotonic() + 60
    while fleet.view(poison).status is not Status.FAILED:
        assert time.monotonic() < give_up_s, fleet.logs()[-3000:]
        fleet.triton.calls.clear()
        worker = fleet.start_worker(ready=False)
        until(lambda: any(map(flawed_step, fleet.triton.calls)) or fleet.view(poison).status is Status.FAILED, 30)
        if fleet.view(poison).status is not Status.FAILED:
            worker.kill()
            worker.wait()
            killed += 1
    assert killed <= 8, "once among companions, twice alone, and when it was killed before a trial was on record"
    failure = fleet.view(poison).failure
    assert failure is not None
    assert failure.kind == "given-up"
    for job in companions:
        fleet.wait(job)


@pytest.mark.parametrize("sickness", [STICKY, UNLOADING], ids=["sticky errors", "unloading"])
def test_16_a_sick_triton_fails_no_job_and_readiness_says_why(build: Build, sickness: Failure) -> None:
    fleet = build()
    fleet.triton.delay_s = 0.02
    worker = fleet.start_worker()
    jobs = [fleet.submit(seed=seed, steps=30) for seed in range(6)]
    fleet.wait_evaluation(jobs[0], 3)
    fleet.triton.sicken(sickness)
    until(lambda: not fleet.ready(worker.pid))
    [info] = fleet.ask(lambda queue: queue.workers())
    assert sickness.message in str(info.detail)
    assert not any(fleet.view(job).status is Status.FAILED for job in jobs)
    fleet.triton.sicken(None)
    for job in jobs:
        fleet.wait(job)


def test_16_jobs_of_a_hanging_triton_move_within_its_time_out(build: Build) -> None:
    """Not three times that: a silent server is not asked again. And the worker stays registered, with its reason."""
    slow = build(triton_timeout_s=1, lease_ms=5000)
    slow.start_worker()
    slow.triton.delay_s = 0.02
    jobs = [slow.submit(seed=seed, steps=60) for seed in range(3)]
    slow.wait_evaluation(jobs[0], 3)
    slow.background.loop.call_soon_threadsafe(slow.triton.hang)
    began_s = time.monotonic()
    until(lambda: all(slow.view(job).status is Status.QUEUED for job in jobs), limit_s=10)
    assert time.monotonic() - began_s < 2 * 1 + 1
    for _ in range(20):
        [info] = slow.ask(lambda queue: queue.workers())
        assert info.state == "unready"
        time.sleep(0.1)
    slow.background.loop.call_soon_threadsafe(slow.triton.resume)
    for job in jobs:
        slow.wait(job)


def test_9_a_hanging_triton_holds_no_drain_up(build: Build) -> None:
    fleet = build(lease_ms=30_000)
    worker = fleet.start_worker()
    fleet.triton.delay_s = 0.02
    jobs = [fleet.submit(seed=seed, steps=60) for seed in range(3)]
    fleet.wait_evaluation(jobs[0], 3)
    fleet.background.loop.call_soon_threadsafe(fleet.triton.hang)
    until(lambda: not fleet.triton.answering.is_set() and fleet.triton.under_way)
    worker.terminate()
    assert worker.wait(8) == 0
    assert {fleet.view(job).status for job in jobs} == {Status.QUEUED}
    assert {fleet.view(job).attempts for job in jobs} == {0}
    fleet.background.loop.call_soon_threadsafe(fleet.triton.resume)


def test_4_a_job_whose_encoder_takes_several_leases_is_not_stolen(build: Build) -> None:
    """Nor one whose decoder does: each call takes three leases, and another worker has nothing to do."""
    fleet = build(lease_ms=400)
    for _ in range(2):
        fleet.start_worker()
    fleet.triton.delay_s = 1.2
    view = fleet.wait(fleet.submit(seed=1, steps=1))
    assert (view.attempts, view.epoch) == (1, 1)


def test_3_what_a_dead_worker_held_goes_before_what_is_new(build: Build) -> None:
    """With a queue that never empties: from the kill to the next evaluation at most lease, scan and a few calls."""
    fleet = build(lease_ms=1000, scan_ms=200, max_rows=8, max_batch=4)
    fleet.triton.delay_s = 0.01
    fleet.start_worker()
    victim = fleet.start_worker()
    for seed in range(150):
        fleet.submit(seed=seed, steps=12)
    held = [f"job-{seed}-12" for seed in range(150)]
    until(lambda: sum(fleet.view(job).evaluation > 0 for job in held[:16]) == 16)
    victim.kill()
    killed_s = time.monotonic()
    running = [view for job in held if (view := fleet.view(job)).status is Status.RUNNING]
    fleet.start_worker(ready=False)
    lost = [view for view in running if view.epoch == 1]
    until(
        lambda: all(fleet.view(view.job.id).epoch > 1 or fleet.view(view.job.id).status.terminal for view in lost), 20
    )
    assert time.monotonic() - killed_s < 2 * (1.0 + 0.2) + 2
    assert any(fleet.view(job).status is Status.QUEUED for job in held), "the queue was empty: the test proves nothing"


def test_14_interactive_work_goes_before_the_batch_work_that_fills_a_worker(build: Build) -> None:
    fleet = build(max_rows=8, max_batch=4)
    fleet.start_worker()
    fleet.triton.delay_s = 0.05
    batch = [fleet.submit(seed=seed, steps=40, priority=Priority.BATCH, job_id=f"batch-{seed}") for seed in range(20)]
    fleet.wait_evaluation(batch[0], 2)
    fleet.triton.calls.clear()
    # Its row is known in a call by the guidance, its prompt by not being known.
    urgent = fleet.submit(seed=77, steps=1, guidance_scale=FLAWED, prompt="b circle")
    fleet.wait(urgent)
    calls = list(fleet.triton.calls)
    encoded = next(place for place, call in enumerate(calls) if call.model == "text_encoder")
    first = next(place for place, call in enumerate(calls) if flawed_step(call))
    assert sum(call.model == "diffusion_step" for call in calls[encoded:first]) <= 2
    done = {job: fleet.view(job).evaluation for job in batch}
    assert sum(fleet.view(job).status is Status.RUNNING for job in batch) <= 6, "rows are kept for urgent work"
    until(lambda: any(fleet.view(job).evaluation > done[job] for job in batch))


def test_rows_are_counted_not_jobs(build: Build) -> None:
    fleet = build(max_rows=8)
    fleet.triton.delay_s = 0.05
    for seed in range(8):
        fleet.submit(seed=seed, steps=20, n=4)
    fleet.start_worker()
    until(lambda: sum(fleet.view(f"job-{seed}-20").status is Status.RUNNING for seed in range(8)) >= 2)
    time.sleep(0.5)
    assert sum(fleet.view(f"job-{seed}-20").status is Status.RUNNING for seed in range(8)) == 2


UNREADABLE = {
    "another priority": {"job": "x", "priority": "bulk"},
    "no job": {"priority": "interactive"},
    "bytes": {"job": b"\xff\xfe", "priority": "interactive"},
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_18_an_entry_that_cannot_be_read_stops_no_worker(build: Build, kind: str) -> None:
    port = free_port()
    fleet = build(worker_metrics_port=port)
    stream = keys.stream(MODEL.name, "interactive")
    fleet.ask(lambda queue: queue.redis.xadd(stream, UNREADABLE[kind]))
    job = fleet.submit(seed=1)
    worker = fleet.start_worker()
    fleet.wait(job)
    assert worker.poll() is None
    [(_, letter)] = fleet.ask(lambda queue: queue.redis.xrange(keys.dead(MODEL.name)))
    assert b"reason" in letter
    assert fleet.ask(lambda queue: queue.redis.xlen(stream)) == 0
    assert 'vqd_unreadable_records_total{kind="entry"} 1.0' in httpx.get(f"http://127.0.0.1:{port}/metrics").text


@pytest.mark.parametrize("checkpoint", ["{}", "no json", '{"rows":[]}', '{"rows":[{"evaluation":3,"tokens":"AAAA"}]}'])
def test_18_a_checkpoint_that_cannot_be_used_is_left_aside(build: Build, checkpoint: str) -> None:
    fleet = build()
    plain, job = fleet.submit(seed=3, job_id="plain"), fleet.submit(seed=3, job_id="spoilt")
    fleet.ask(lambda queue: queue.redis.hset(keys.job(job), "checkpoint", checkpoint))
    fleet.start_worker()
    fleet.wait(job)
    fleet.wait(plain)
    assert fleet.tokens(job) == fleet.tokens(plain)


def test_19_a_checkpoint_of_another_model_is_begun_again_and_the_result_says_so(build: Build) -> None:
    fleet = build()
    fleet.triton.delay_s = 0.05
    worker = fleet.start_worker()
    job, plain = fleet.submit(seed=3, steps=20), fleet.submit(seed=3, steps=20, job_id="plain")
    fleet.wait_evaluation(job, 8)
    worker.terminate()
    worker.wait(10)
    record = json.loads(fleet.ask(lambda queue: queue.redis.hget(keys.job(job), "checkpoint")))
    fleet.ask(lambda queue: queue.redis.hset(keys.job(job), "checkpoint", json.dumps(record | {"model": "other"})))
    fleet.start_worker()
    result = fleet.wait(job).result
    assert result is not None
    assert (result.started_again, result.evaluations_repeated >= 8) == (True, True)
    fleet.wait(plain)
    assert fleet.tokens(job) == fleet.tokens(plain)


@pytest.mark.parametrize("change", [{"tokens": 16}, {"codes": 512}, {"fingerprint": "of another export"}])
def test_19_a_worker_whose_triton_serves_another_model_takes_nothing_and_says_why(
    build: Build, change: dict[str, object]
) -> None:
    fleet = build()
    path = fleet.folder / "repository" / "vqd.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    worker = fleet.start_worker(ready=False)
    job = fleet.submit(seed=1)
    until(lambda: fleet.ask(lambda queue: queue.workers()), limit_s=30)
    until(lambda: "another model" in str(fleet.ask(lambda queue: queue.workers())[0].detail))
    assert not fleet.ready(worker.pid)
    assert fleet.view(job).status is Status.QUEUED
