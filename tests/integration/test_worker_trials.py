"""Suspect jobs on trial, and who becomes one: a real Redis, the shipped fake of Triton."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
import test_worker_jobs as worker_jobs
from both_sides import JobQueue
from gateway_harness import MODEL
from queue_support import EVALUATIONS, eventually, make_job, opened, settings_for
from queue_support import MODEL as MODEL_NAME
from samples import make_info
from test_inference import NULL
from test_worker_jobs import STATES, claim, run

from service.engine.conditions import Conditions
from service.errors import RedisUnavailable, TritonUnavailable
from service.messages import Checkpoint, Event, Status
from service.queue.leases import Lease
from service.settings import Settings
from service.storage import Bucket
from service.testing.fake_triton import FakeTriton
from service.triton.contract import STEP
from service.worker.job import HeldJob, State
from service.worker.jobs import HeldJobs
from service.worker.stepper import Stepper
from service.worker.trials import Trials

CONDITIONS = Conditions(make_info(), None)
pytestmark = pytest.mark.anyio

jobs, fake, stepper = worker_jobs.jobs, worker_jobs.fake, worker_jobs.stepper


class PoorQueue(JobQueue):
    """Redis may be away for some beginnings of trials, and some ends."""

    away = away_at_end = 0

    async def begin_trial(self, lease: Lease) -> None:
        if self.away:
            self.away -= 1
            raise RedisUnavailable("away")
        await super().begin_trial(lease)

    async def progress(self, lease: Lease, event: Event | None, checkpoint: Checkpoint | None) -> bool:
        if self.away_at_end:
            self.away_at_end -= 1
            raise RedisUnavailable("away")
        return await super().progress(lease, event, checkpoint)


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[PoorQueue]:
    poor = PoorQueue.connect(settings_for(redis_url))
    yield poor
    await poor.close()


async def claim_again(jobs: HeldJobs, queue: JobQueue) -> HeldJob:
    [lease] = await queue.take(MODEL.name, "worker", 1, 0)
    job = jobs.claim(lease)
    job.enter(State.ENCODING)
    job.make_rows()
    return job


async def suspect(jobs: HeldJobs, queue: JobQueue, evaluations: int) -> HeldJob:
    """A job that was blamed for a Triton after so many evaluations of four."""
    first = await run(await claim(jobs, queue))
    first.rows[0].advance(np.zeros_like(first.rows[0].tokens), evaluations)
    await queue.progress(first.lease, first.event(), None)
    await first.release()
    await (await claim_again(jobs, queue)).release(blame=True)
    job = await claim_again(jobs, queue)
    assert job.lease.suspect
    return job


@asynccontextmanager
async def going_on(trials: Trials) -> AsyncIterator[None]:
    running = asyncio.create_task(trials.run())
    yield
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("reached", [True, False])
async def test_only_whose_inference_reached_triton_is_a_suspect(
    jobs: HeldJobs, queue: JobQueue, stepper: Stepper, reached: bool
) -> None:
    await claim(jobs, queue, "waits")
    in_call = await run(await claim(jobs, queue, "in a call"))
    await stepper.health.lose_triton(TritonUnavailable("gone", reached), [in_call])
    leases = await queue.take(MODEL.name, "worker", 2, 0)
    assert {lease.job.id: lease.suspect for lease in leases} == {"in a call": reached, "waits": False}


async def test_who_was_lost_at_its_picture_is_decoded_alone(jobs: HeldJobs, queue: JobQueue, stepper: Stepper) -> None:
    """A trial that ended before would give it to the decoder beside the others again."""
    job = await suspect(jobs, queue, evaluations=4)
    await Trials(stepper, CONDITIONS).try_alone(job, (NULL, NULL))
    assert stepper.decoder.rows == []
    assert (await queue.view("one")).status is Status.SUCCEEDED


@pytest.mark.parametrize("away", [0, 1], ids=["", "Redis is away then"])
async def test_a_suspect_whose_picture_goes_to_storage_is_at_the_end_of_its_trial(
    jobs: HeldJobs, queue: PoorQueue, stepper: Stepper, away: int
) -> None:
    """Nobody uploads here, so it stays on the way."""
    stepper.decoder.uploads.bucket = Bucket.of(Settings(s3_bucket="pictures"))
    job, trials = await suspect(jobs, queue, evaluations=4), Trials(stepper, CONDITIONS)
    queue.away_at_end = away
    await trials.try_alone(job, (NULL, NULL))
    assert (job.state, job.held, stepper.decoder.rows) == (State.STORING, True, [])
    assert not trials.waiting, "one more would begin it anew"


async def test_what_was_lost_is_repeated_in_calls_as_long_as_any_other(
    jobs: HeldJobs, queue: JobQueue, stepper: Stepper, fake: FakeTriton
) -> None:
    """Nothing else runs meanwhile: one evaluation at a time would hold everybody up."""
    job = await suspect(jobs, queue, evaluations=2)
    job.rows[0].evaluation = 0  # its last checkpoint is older than what was announced
    stepper.scheduler.times.record(1, 0.001)
    fake.calls.clear()
    await Trials(stepper, CONDITIONS).try_alone(job, (NULL, NULL))
    steps = [call.inputs["timestep"].shape for call in fake.calls if call.model == "diffusion_step"]
    assert steps == [(1, 3)]
    assert (await queue.view("one")).evaluation == 3


async def test_a_trial_is_made_up_for_when_redis_answers_again(
    jobs: HeldJobs, queue: PoorQueue, stepper: Stepper
) -> None:
    async def went_on() -> bool:
        return (await queue.view("one")).evaluation == 2

    await stepper.health.check()
    trials = Trials(stepper, CONDITIONS)
    trials.add(await suspect(jobs, queue, evaluations=1), (NULL, NULL))
    queue.away = 1
    async with going_on(trials):
        await eventually(went_on)
    assert queue.away == 0


async def test_nothing_else_calls_triton_during_a_trial(
    jobs: HeldJobs, queue: PoorQueue, stepper: Stepper, fake: FakeTriton
) -> None:
    async def asked() -> bool:
        return len(fake.calls) > before

    await stepper.health.check()
    trials = Trials(stepper, CONDITIONS)
    trials.add(await suspect(jobs, queue, evaluations=1), (NULL, NULL))
    before = len(fake.calls)
    fake.hang()
    async with going_on(trials):
        await eventually(asked)
        assert not stepper.inference.turns.free
        fake.resume()
        await asyncio.wait_for(stepper.inference.turns.freed.wait(), 5)
    assert stepper.inference.turns.free


async def test_a_trial_may_take_as_long_as_the_model_is_known_to_take(
    jobs: HeldJobs, queue: PoorQueue, stepper: Stepper, fake: FakeTriton
) -> None:
    """What the checks found out holds for suspects, too: else each would be cut off, and given up."""
    await stepper.health.check()
    job = await suspect(jobs, queue, evaluations=1)
    job.note_encoded(STATES, 0.1)
    job.enter(State.RUNNING)
    stepper.inference.triton.timeout_s, stepper.inference.pace.row_s = 0.1, {STEP: 5.0}
    fake.delay_s = 0.2
    await Trials(stepper, CONDITIONS).try_alone(job, (NULL, NULL))
    assert (await queue.view("one")).evaluation == 2


@pytest.mark.parametrize("model", ["text_encoder", "diffusion_step"])
async def test_a_suspect_that_is_answered_with_an_error_has_failed(
    jobs: HeldJobs, queue: PoorQueue, stepper: Stepper, fake: FakeTriton, model: str
) -> None:
    job = await suspect(jobs, queue, evaluations=1)
    fake.fail_next(model=model)
    await Trials(stepper, CONDITIONS).try_alone(job, (NULL, NULL))
    assert (await queue.view("one")).status is Status.FAILED
    assert not job.held


async def test_a_suspect_that_is_another_workers_by_now_is_dropped(
    jobs: HeldJobs, queue: PoorQueue, stepper: Stepper, fake: FakeTriton
) -> None:
    job = await suspect(jobs, queue, evaluations=1)
    await queue.release(job.lease, None)
    [again] = await queue.take(MODEL.name, "other", 1, 0)
    await Trials(stepper, CONDITIONS).try_alone(job, (NULL, NULL))
    assert (job.held, fake.calls) == (False, [])
    assert await queue.renew(again)


async def test_a_trial_that_a_drain_cut_short_counts_neither_then_nor_later(redis_url: str) -> None:
    """Nor does blame: it is for one claim."""
    async with opened(redis_url, max_attempts=1) as queue:
        job = make_job()
        await queue.enqueue(job, EVALUATIONS)

        async def take() -> Lease:
            [lease] = await queue.take(MODEL_NAME, "worker", 2, 0)
            return lease

        await queue.release(await take(), None, blame=True)
        on_trial = await take()
        await queue.begin_trial(on_trial)
        await queue.release(on_trial, None)
        await queue.release(await take(), None, blame=True)
        assert (await take()).suspect
