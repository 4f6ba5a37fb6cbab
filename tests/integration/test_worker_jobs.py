"""A job that a worker holds, and the worker's parts one by one: a real Redis, the shipped fake of Triton."""

import asyncio
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest
from both_sides import JobQueue
from fleet import SHAPES
from gateway_harness import MODEL
from prometheus_client import CollectorRegistry
from queue_support import idle_ms, opened
from samples import make_parameters
from test_inference import RED

from service.condition import Condition
from service.diffusion.samplers import make_plan
from service.engine.inference import Inference
from service.engine.scheduler import Scheduler
from service.engine.turns import Turns
from service.errors import InferenceFailed, InvalidRequest, StaleEpoch
from service.messages import Job, Priority, Status
from service.telemetry.metrics import WorkerMetrics
from service.telemetry.tracing import Tracer
from service.testing.fake_triton import FakeTriton, token_out_of_range
from service.triton.client import TritonClient
from service.triton.contract import StepBatch, diffusion_step
from service.worker.decoder import Decoder
from service.worker.health import Health
from service.worker.images import origin_of
from service.worker.job import HeldJob, JobRow, State
from service.worker.jobs import HeldJobs
from service.worker.outage import RedisOutage
from service.worker.reporter import Reporter
from service.worker.settlement import Settlement
from service.worker.stepper import Stepper
from service.worker.traces import Traces

pytestmark = pytest.mark.anyio
LEASE_MS = 300
STATES = (np.zeros((SHAPES.text_positions, SHAPES.text_width), np.float16),) * 2


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[JobQueue]:
    async with opened(redis_url, lease_ms=LEASE_MS) as queue:
        yield queue


@pytest.fixture
def jobs(queue: JobQueue) -> HeldJobs:
    metrics = WorkerMetrics(CollectorRegistry())
    return HeldJobs(MODEL, Settlement(queue, metrics, Traces(Tracer()), RedisOutage(metrics)))


async def claim(jobs: HeldJobs, queue: JobQueue, job_id: str = "one", **parameters: object) -> HeldJob:
    wanted = make_parameters(**{"steps": 4, "tokens_per_step": 16, **parameters})
    job = Job(
        id=job_id,
        model=MODEL.name,
        prompt="a",
        negative_prompt=None,
        parameters=wanted,
        priority=Priority.INTERACTIVE,
    )
    await queue.enqueue(job, 4)
    [lease] = await queue.take(MODEL.name, "worker", 1, 0)
    return jobs.claim(lease)


async def run(job: HeldJob) -> HeldJob:
    """As far as admission brings it."""
    job.enter(State.ENCODING)
    job.make_rows()
    job.note_encoded(STATES, 0.1)
    job.enter(State.RUNNING)
    return job


def count(jobs: HeldJobs, name: str, **labels: str) -> float | None:
    return jobs.metrics.registry.get_sample_value(name, labels)


async def test_each_picture_of_a_job_has_a_plan_of_its_own(jobs: HeldJobs, queue: JobQueue) -> None:
    job = await run(await claim(jobs, queue, n=3, sampler="halton", tokens_per_step=None))
    wanted = job.lease.job.parameters
    plans = [make_plan(wanted, MODEL.tokens, MODEL.timesteps, image) for image in range(3)]
    assert [row.plan.order.tolist() for row in job.rows] == [plan.order.tolist() for plan in plans]
    assert len({tuple(plan.order) for plan in plans}) == 3


async def test_a_job_may_begin_with_any_picture_of_its_seed(jobs: HeldJobs, queue: JobQueue) -> None:
    """Plan and noise are of the number in the seed; what is stored and named is by the place in the job."""
    job = await run(await claim(jobs, queue, n=2, image_index=2, sampler="halton", tokens_per_step=None))
    wanted = job.lease.job.parameters
    plans = [make_plan(wanted, MODEL.tokens, MODEL.timesteps, image) for image in (2, 3)]
    assert [row.plan.order.tolist() for row in job.rows] == [plan.order.tolist() for plan in plans]
    assert [row.image for row in job.rows] == [2, 3]
    assert [info.index for info in job.result().images] == [0, 1]
    told = [origin_of(row) for row in job.rows]
    assert [origin.request["image_index"] for origin in told if origin] == [2, 3]


async def test_a_job_is_held_from_its_claim_to_its_end(jobs: HeldJobs, queue: JobQueue) -> None:
    job = await claim(jobs, queue, n=2)
    assert list(jobs) == [job]
    assert jobs.rows == 2, "its place is taken before it has rows"
    await run(job)
    await job.fail(InferenceFailed("no use"))
    assert (list(jobs), jobs.rows, job.state) == ([], 0, State.GONE)
    assert all(row.dropped for row in job.rows)
    assert str((await queue.view("one")).failure) == "no use"


async def test_a_job_ends_once_whoever_comes_first(jobs: HeldJobs, queue: JobQueue) -> None:
    job = await run(await claim(jobs, queue))
    await asyncio.gather(
        job.fail(InferenceFailed("first")), job.release(), job.cancel(), job.fail(InferenceFailed("x"))
    )
    view = await queue.view("one")
    assert (view.status, str(view.failure)) == (Status.FAILED, "first")
    assert count(jobs, "vqd_fenced_writes_total") == 0, "nothing was written after its end"
    assert count(jobs, "vqd_jobs_total", outcome="failed") == 1


async def test_a_lost_job_is_dropped_without_a_word(jobs: HeldJobs, queue: JobQueue) -> None:
    job = await run(await claim(jobs, queue))
    job.lose(StaleEpoch("another's"))
    await job.release()
    assert (await queue.view("one")).status is Status.RUNNING
    assert job.rows[0].dropped
    assert list(jobs) == []


async def test_no_step_back(jobs: HeldJobs, queue: JobQueue) -> None:
    job = await run(await claim(jobs, queue))
    with pytest.raises(RuntimeError, match="is RUNNING and cannot become ENCODING"):
        job.enter(State.ENCODING)


async def test_a_failure_names_its_field(jobs: HeldJobs, queue: JobQueue) -> None:
    job = await claim(jobs, queue)
    await job.fail(InvalidRequest("prompt", "is too long"))
    failure = (await queue.view("one")).failure
    assert failure is not None
    assert (failure.kind, failure.field, failure.message) == ("invalid-request", "prompt", "is too long")
    assert (await queue.events("one"))[-1][1].detail == "prompt: is too long"


async def test_a_job_is_renewed_whatever_it_waits_for(jobs: HeldJobs, queue: JobQueue) -> None:
    """It has no rows yet: its prompt is being encoded, and that takes several leases."""
    reporter = Reporter(jobs, queue.settings)
    job = await claim(jobs, queue)
    job.enter(State.ENCODING)
    for _ in range(3):
        await asyncio.sleep(LEASE_MS / 2000)
        await reporter.report()
        assert await idle_ms(queue, job.lease.stream, job.lease.entry_id) < LEASE_MS / 2
    assert await queue.recover(MODEL.name, "idle", 5) == []
    assert (await queue.view("one")).attempts == 1


async def test_a_cancel_is_heard_before_the_first_step(jobs: HeldJobs, queue: JobQueue) -> None:
    job = await claim(jobs, queue)
    job.enter(State.ENCODING)
    await queue.cancel("one")
    await asyncio.sleep(LEASE_MS / 3000)
    await Reporter(jobs, queue.settings).report()
    assert (await queue.view("one")).status is Status.CANCELLED
    assert list(jobs) == []


async def test_nothing_done_leaves_no_checkpoint(jobs: HeldJobs, queue: JobQueue) -> None:
    job = await run(await claim(jobs, queue))
    await job.release()
    [again] = await queue.take(MODEL.name, "worker", 1, 0)
    assert again.checkpoint is None


@pytest.fixture
async def fake() -> AsyncIterator[FakeTriton]:
    async with FakeTriton(SHAPES) as server:
        yield server


@pytest.fixture
async def stepper(jobs: HeldJobs, fake: FakeTriton) -> AsyncIterator[Stepper]:
    triton = TritonClient(fake.url)
    inference = Inference(triton, Turns(1), jobs.metrics, max_batch=4)
    health, traces = Health(inference, jobs), Traces(Tracer())
    scheduler: Scheduler[JobRow] = Scheduler(4, call_target_s=1)
    yield Stepper(scheduler, inference, Decoder(inference, health, traces), health, traces)
    await triton.close()


async def test_schedule_run_and_post_process(jobs: HeldJobs, queue: JobQueue, stepper: Stepper) -> None:
    await stepper.health.check()
    job = await run(await claim(jobs, queue, n=2))
    stepper.add(job.rows)
    call = await stepper.schedule()
    assert not stepper.inference.turns.free
    await stepper.run_call(call)
    assert (call.evaluations, job.evaluation, job.calls) == (1, 2, 1)
    assert stepper.inference.turns.free
    while any(row.remaining for row in job.rows):
        await stepper.run_call(await stepper.schedule())
    assert job.state is State.DECODING
    await stepper.decoder.decode(stepper.decoder.take())
    assert (await queue.view("one")).status is Status.SUCCEEDED


async def test_a_job_knows_when_its_first_evaluation_began_and_in_which_call(
    jobs: HeldJobs, queue: JobQueue, stepper: Stepper
) -> None:
    """The second is accepted before the calls of the first and added after two of them."""
    await stepper.health.check()
    first, second = [await claim(jobs, queue, name) for name in ("first", "second")]
    stepper.scheduler.call_target_s = 0
    stepper.add((await run(first)).rows)
    for _ in range(2):
        await stepper.run_call(await stepper.schedule())
    began_s = time.monotonic()
    stepper.add((await run(second)).rows)
    await stepper.run_call(await stepper.schedule())
    assert (first.first_call, second.first_call) == (1, 3)
    assert first.first_s is not None
    assert second.first_s is not None
    first_at, second_at = (job.claimed_s - job.queue_s + (job.first_s or 0) for job in (first, second))
    assert first_at < began_s <= second_at <= time.monotonic()
    while any(row.remaining for row in [*first.rows, *second.rows]):
        await stepper.run_call(await stepper.schedule())
    await stepper.decoder.decode(stepper.decoder.take())
    result = (await queue.view("second")).result
    assert result is not None
    assert (result.timings.first_call, result.timings.first_s) == (3, second.first_s)


async def test_rows_of_a_job_that_ends_during_a_call_go_no_further(
    jobs: HeldJobs, queue: JobQueue, stepper: Stepper, fake: FakeTriton
) -> None:
    await stepper.health.check()
    gone, stays = [await run(await claim(jobs, queue, name)) for name in ("gone", "stays")]
    stepper.add([*gone.rows, *stays.rows])
    fake.delay_s = 0.1
    running = asyncio.create_task(stepper.run_call(await stepper.schedule()))
    await asyncio.sleep(0.02)
    await gone.cancel()
    await running
    assert (await stepper.schedule()).rows == tuple(stays.rows)


@pytest.mark.parametrize(("pictures", "step_calls"), [(3, 1), (4, 2), (9, 2)])
async def test_a_full_batch_runs_twice_in_a_turn(
    jobs: HeldJobs, queue: JobQueue, stepper: Stepper, fake: FakeTriton, pictures: int, step_calls: int
) -> None:
    """Four fill one. What waits to be encoded or decoded waits for both calls, and for no third."""
    await stepper.health.check()
    stepper.scheduler.call_target_s = 0
    stepper.add((await run(await claim(jobs, queue, n=pictures))).rows)
    call = await stepper.schedule()
    waiting = asyncio.create_task(stepper.inference.encode([RED]))
    await stepper.run_call(call)
    await waiting
    calls = [call.model for call in fake.calls][4:]  # after those of the check
    assert calls == ["diffusion_step"] * step_calls + ["text_encoder"]


async def test_no_second_call_after_one_that_failed(
    jobs: HeldJobs, queue: JobQueue, stepper: Stepper, fake: FakeTriton
) -> None:
    await stepper.health.check()
    stepper.add((await run(await claim(jobs, queue, n=8))).rows)
    fake.corrupt_next(token_out_of_range)
    await stepper.run_call(await stepper.schedule())
    steps = [call.rows for call in fake.calls if call.model == "diffusion_step"]
    assert steps == [1, 4, 1], "a check, the call, and a check whether Triton is sick"
    assert stepper.inference.turns.free


async def test_a_triton_that_goes_hands_over_even_what_only_waits_for_it(
    jobs: HeldJobs, queue: JobQueue, stepper: Stepper, fake: FakeTriton
) -> None:
    await stepper.health.check()
    running = await run(await claim(jobs, queue, "running"))
    waiting = await claim(jobs, queue, "waiting")
    stepper.add(running.rows)
    await fake.stop()
    await stepper.run_call(await stepper.schedule())
    assert stepper.health.state == "unready"
    assert [(await queue.view(name)).status for name in ("running", "waiting")] == [Status.QUEUED] * 2
    assert not waiting.held


async def looks(health: Health) -> int:
    """How many calls it begins when it looks whether to check."""
    channel = health.inference.triton.channel
    assert channel
    before = set(channel.calls)
    watch = asyncio.create_task(health.watch())
    for _ in range(5):
        await asyncio.sleep(0)
    watch.cancel()
    return len(channel.calls - before)


async def test_no_check_is_sent_beside_a_call_nor_more_often_than_checks_are_quick(
    stepper: Stepper, fake: FakeTriton
) -> None:
    """With a large model each takes seconds, and both would take twice as long."""
    health, inference = stepper.health, stepper.inference
    await health.check()
    known = len(fake.calls)
    fake.hang()
    call = asyncio.create_task(inference.step(StepBatch(**diffusion_step(Condition.TEXT).sample(SHAPES))))
    async with asyncio.timeout(10):
        while len(fake.calls) == known:
            await asyncio.sleep(0.001)
    inference.last_success = time.monotonic() - 60
    assert await looks(health) == 0, "the step tells"
    fake.resume()
    await call
    inference.last_success = time.monotonic() - 60
    assert await looks(health) == 1
    inference.pace.row_s = {"diffusion_step": 7.0}
    assert await looks(health) == 0, "it is not time yet"
