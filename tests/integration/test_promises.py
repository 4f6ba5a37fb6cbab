"""The promises of reliability.md, by number: real worker processes, a real Redis, the fake of Triton."""

import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fleet import Fleet, delivery_counts, gather, terminal_events
from gateway_harness import MODEL, until

from service.messages import Priority, Status
from service.queue import keys
from service.settings import Settings
from service.sockets import free_port

INTERACTIVE = keys.stream(MODEL.name, Priority.INTERACTIVE.value)
KILLS = 10
TIMES = ("lease_ms", "scan_ms", "checkpoint_ms", "call_target_ms", "max_attempts")
AS_INSTALLED = {name: Settings.model_fields[name].default for name in TIMES}
"""Which a fleet otherwise makes short."""
Build = Callable[..., Fleet]


@pytest.fixture
def build(redis_url: str, tmp_path: Path) -> Iterator[Build]:
    """Make a fleet with settings of the test's own; it is closed at the end."""
    fleets: list[Fleet] = []

    def make(**environment: object) -> Fleet:
        fleets.append(Fleet(redis_url, tmp_path, **environment))
        return fleets[-1]

    yield make
    for fleet in fleets:
        fleet.close()


def test_1_no_accepted_job_is_lost_to_dying_workers_and_gateways(build: Build) -> None:
    """500 jobs over HTTP, at default settings; a random ready worker is killed every second, KILLS times, and the
    gateway once: all jobs succeed, each once. (A replacement costs seconds of CPU to start: on two cores, killing for
    ever would be all they do.)
    """
    fleet = build(**AS_INSTALLED)
    fleet.triton.delay_s = 0.05
    gateway_port = free_port()
    gateway = fleet.start_gateway(gateway_port)
    for _ in range(3):
        fleet.start_worker()
    accepted: list[str] = []
    choose = random.Random(1)
    with httpx.Client(base_url=f"http://127.0.0.1:{gateway_port}") as client:
        next_kill_s = time.monotonic() + 1
        for number in range(500):
            accepted.append(post_until_accepted(client, number))
            if number == 250:
                gateway.kill()
                gateway.wait()
                fleet.start_gateway(gateway_port)
            next_kill_s = kill_when_due(fleet, choose, next_kill_s)
    unfinished = set(accepted)
    give_up_s = time.monotonic() + 180
    while unfinished:
        assert time.monotonic() < give_up_s, f"{len(unfinished)} jobs are not finished; {fleet.logs()[-2000:]}"
        next_kill_s = kill_when_due(fleet, choose, next_kill_s)
        views = gather(fleet, sorted(unfinished), lambda queue, job: queue.view(job))
        unfinished -= {view.job.id for view in views if view.status is Status.SUCCEEDED}
        assert all(view.status is not Status.FAILED for view in views)
    assert len(set(accepted)) == 500
    assert set(gather(fleet, accepted, terminal_events)) == {1}
    assert killed(fleet) == KILLS, "the jobs were done before the killing was"


def post_until_accepted(client: httpx.Client, number: int) -> str:
    """A client that retries as the README says: same Idempotency-Key until it is accepted."""
    headers = {"Prefer": "respond-async", "Idempotency-Key": f"key-{number}"}
    give_up_s = time.monotonic() + 60
    while True:
        try:
            body = {"prompt": "a red circle", "seed": number}
            response = client.post("/generate", json=body, headers=headers)
            if response.status_code in (200, 202):
                return str(response.json()["id"])
        except httpx.TransportError:
            pass
        assert time.monotonic() < give_up_s
        time.sleep(0.05)


def killed(fleet: Fleet) -> int:
    return sum(worker.poll() == -signal.SIGKILL for worker in fleet.workers)


def kill_when_due(fleet: Fleet, choose: random.Random, due_s: float) -> float:
    """Once a second SIGKILL a ready worker and start another, KILLS times in all; returns when the next is due."""
    ready = [worker for worker in fleet.workers if worker.poll() is None and fleet.ready(worker.pid)]
    if time.monotonic() < due_s or killed(fleet) == KILLS or not ready:
        return due_s
    victim = choose.choice(ready)
    victim.kill()
    victim.wait()
    fleet.start_worker(ready=False)
    return time.monotonic() + 1


def test_2_a_dead_workers_job_resumes_from_its_checkpoint(build: Build) -> None:
    fleet = build(checkpoint_ms=300)
    fleet.start_worker()
    plain = fleet.submit(seed=5, steps=60, job_id="uninterrupted")
    fleet.wait(plain)
    fleet.triton.calls.clear()
    fleet.triton.delay_s = 0.05
    killed = fleet.submit(seed=5, steps=60, job_id="killed")
    fleet.wait_evaluation(killed, 25)
    fleet.workers[0].kill()
    fleet.start_worker()
    view = fleet.wait(killed)
    assert fleet.tokens(killed) == fleet.tokens(plain)
    assert view.attempts == 2
    # A checkpoint is at most checkpoint_ms plus one report old; a step takes at least delay_s.
    oldest_s = 0.3 + 2 * 0.1
    repeated = fleet.evaluations_run() - 60
    assert 0 <= repeated <= oldest_s / 0.05 + 1
    assert view.result is not None
    assert view.result.evaluations_repeated <= repeated


def test_4_a_long_job_is_never_stolen_while_its_worker_lives(build: Build) -> None:
    fleet = build(lease_ms=400)
    fleet.start_worker()
    fleet.triton.delay_s = 0.1
    job = fleet.submit(seed=1, steps=45)  # more than ten leases
    fleet.wait_evaluation(job, 1)
    fleet.start_worker()
    counts: set[int] = set()
    while fleet.view(job).status is Status.RUNNING:
        counts.update(fleet.ask(lambda queue: delivery_counts(queue, INTERACTIVE)))
        time.sleep(0.02)
    view = fleet.wait(job)
    assert counts == {1}
    assert (view.attempts, view.epoch) == (1, 1)
    assert fleet.evaluations_run() == 45


def test_5_a_zombie_cannot_write(build: Build) -> None:
    fleet = build(lease_ms=500)
    zombie = fleet.start_worker()
    fleet.triton.delay_s = 0.05
    job = fleet.submit(seed=2, steps=40)
    fleet.wait_evaluation(job, 5)
    zombie.send_signal(signal.SIGSTOP)
    fleet.start_worker()
    fleet.wait(job)
    before = fleet.view(job)
    zombie.send_signal(signal.SIGCONT)
    until(lambda: fleet.ask(lambda queue: queue.fenced_writes()) >= 1)
    assert fleet.view(job) == before
    assert fleet.ask(lambda queue: terminal_events(queue, job)) == 1
    assert before.epoch == 2
    follow_up = fleet.submit(seed=3, steps=4)
    fleet.wait(follow_up)
    assert zombie.poll() is None, "a fenced worker goes on with other work"


def test_7_a_poison_job_dies_and_others_do_not(build: Build) -> None:
    """A row that the model cannot digest fails alone, with its reason; the rows that shared its calls succeed."""
    fleet = build()
    fleet.triton.delay_s = 0.02
    fleet.start_worker()
    healthy = [fleet.submit(seed=seed, steps=20) for seed in range(4)]
    fleet.wait_evaluation(healthy[0], 2)
    # The shared call fails once, then the first row that runs alone fails again: that one is to blame.
    fleet.triton.fail_next(calls=2)
    outcomes = [fleet.wait(job, Status.SUCCEEDED, Status.FAILED) for job in healthy]
    failed = [view for view in outcomes if view.status is Status.FAILED]
    assert len(failed) == 1
    assert "injected failure" in str(failed[0].failure)


def test_8_cancel_stops_a_running_job_within_a_call(build: Build) -> None:
    fleet = build()
    fleet.triton.delay_s = 0.2
    fleet.start_worker()
    job = fleet.submit(seed=1, steps=50)
    fleet.wait_evaluation(job, 2)
    calls = len(fleet.triton.calls)
    fleet.ask(lambda queue: queue.cancel(job))
    fleet.wait(job, Status.CANCELLED)
    # The call under way may end, and one more may have been started before the report that hears of the cancel.
    assert len(fleet.triton.calls) <= calls + 2
    after = len(fleet.triton.calls)
    quick = fleet.submit(seed=2, steps=4)
    fleet.wait(quick)
    assert all(call.rows == 1 for call in fleet.triton.calls[after:] if call.model == "diffusion_step")


def test_8_a_cancelled_queued_job_never_runs(build: Build) -> None:
    fleet = build()
    jobs = [fleet.submit(seed=seed, steps=4) for seed in range(3)]
    fleet.ask(lambda queue: queue.cancel(jobs[1]))
    fleet.start_worker()
    fleet.wait(jobs[0])
    fleet.wait(jobs[2])
    assert fleet.view(jobs[1]).status is Status.CANCELLED
    assert fleet.view(jobs[1]).started_ms is None
    assert fleet.evaluations_run() == 8


def test_9_a_rolling_restart_loses_and_repeats_nothing(build: Build) -> None:
    fleet = build(lease_ms=10_000)  # nobody dies here; a busy machine must not look like it
    fleet.triton.delay_s = 0.03
    old = [fleet.start_worker(), fleet.start_worker()]
    jobs = [fleet.submit(seed=seed, steps=30) for seed in range(60)]
    for worker in old:
        fleet.start_worker()
        worker.terminate()
        assert worker.wait(10) == 0
    views = [fleet.wait(job, limit_s=60) for job in jobs]
    assert {view.attempts for view in views} == {1}
    assert any(view.epoch > 1 for view in views), "no job was handed over: the test proves nothing"
    assert fleet.evaluations_run() == 60 * 30


def test_triton_away_is_waited_for(build: Build) -> None:
    """Promise 16 in part: jobs wait while Triton is gone, the worker says that it is not ready, and all recovers."""
    fleet = build()
    fleet.triton.delay_s = 0.02
    worker = fleet.start_worker()
    jobs = [fleet.submit(seed=seed, steps=30) for seed in range(4)]
    fleet.wait_evaluation(jobs[0], 3)
    fleet.background.call(fleet.triton.stop())
    until(lambda: not fleet.ready(worker.pid))
    fleet.background.call(fleet.triton.start())
    for job in jobs:
        fleet.wait(job)
    assert worker.poll() is None


def restart_triton(fleet: Fleet, fingerprint: str) -> None:
    fleet.background.call(fleet.triton.stop())
    fleet.triton.fingerprint = fingerprint
    fleet.background.call(fleet.triton.start())


def test_19_a_job_waits_while_its_triton_serves_other_weights_of_the_same_sizes(build: Build) -> None:
    fleet = build()
    fleet.triton.delay_s = 0.05
    fleet.start_worker()
    job, plain = fleet.submit(seed=3, steps=20), fleet.submit(seed=3, steps=20, job_id="plain")
    fleet.wait_evaluation(job, 8)
    restart_triton(fleet, "of another export")
    fleet.triton.calls.clear()
    until(lambda: "another model" in str(fleet.ask(lambda queue: queue.workers())[0].detail))
    fleet.wait(job, Status.QUEUED)
    assert fleet.triton.calls == [], "the other model has made nothing of it"
    restart_triton(fleet, "")
    for one in (job, plain):
        fleet.wait(one)
    assert fleet.tokens(job) == fleet.tokens(plain)


def test_a_worker_makes_one_call_at_a_time_or_encodes_beside_a_decoding(build: Build) -> None:
    """Steps, encodings and decodings of jobs that come at any time, with nothing lost between the turns."""
    fleet = build()
    fleet.start_worker()
    fleet.triton.delay_s, fleet.triton.most_under_way = 0.01, 0
    jobs = [fleet.submit(seed=seed, steps=3 + seed % 5, n=1 + seed % 3) for seed in range(30)]
    for job in jobs:
        fleet.wait(job)
    assert fleet.triton.most_under_way <= 2


def test_what_comes_while_an_idle_worker_encodes_is_in_the_first_call(build: Build) -> None:
    fleet = build()
    fleet.start_worker()
    fleet.triton.calls.clear()
    fleet.triton.delay_s = 0.3
    jobs = []
    for seed in (1, 2, 3):
        until(lambda: sum(call.model == "text_encoder" for call in fleet.triton.calls) == len(jobs))
        jobs.append(fleet.submit(seed=seed, steps=3, prompt=f"{'abc'[seed - 1]} circle"))
    for job in jobs:
        fleet.wait(job)
    steps = [call for call in fleet.triton.calls if call.model == "diffusion_step"]
    assert [call.rows for call in steps] == [3] * len(steps)
