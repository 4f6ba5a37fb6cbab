"""Things that happen to a job at once, and how often it writes: a real Redis, the shipped fake of Triton."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest
import test_worker_jobs as worker_jobs
from both_sides import JobQueue
from gateway_harness import MODEL
from queue_support import eventually, settings_for
from test_worker_jobs import LEASE_MS, claim, count, run

from service.errors import RedisUnavailable, StaleEpoch, TritonUnavailable
from service.messages import Checkpoint, Event, Result, Status
from service.queue.leases import Lease
from service.testing.fake_triton import FakeTriton
from service.worker.health import Health
from service.worker.job import HeldJob
from service.worker.jobs import HeldJobs
from service.worker.reporter import Reporter
from service.worker.stepper import Stepper

pytestmark = pytest.mark.anyio

jobs, fake, stepper = worker_jobs.jobs, worker_jobs.fake, worker_jobs.stepper


class SlowQueue(JobQueue):
    """Reports may be held up on their way, and Redis away for some completions."""

    reporting, let_through = asyncio.Event(), asyncio.Event()
    away = 0

    async def complete(self, lease: Lease, result: Result, images: list[bytes]) -> None:
        if self.away:
            self.away -= 1
            raise RedisUnavailable("away")
        await super().complete(lease, result, images)

    async def progress_all(
        self, reports: list[tuple[Lease, Event | None, Checkpoint | None]]
    ) -> list[bool | StaleEpoch]:
        self.reporting.set()
        await self.let_through.wait()
        return await super().progress_all(reports)


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[SlowQueue]:
    slow = SlowQueue.connect(settings_for(redis_url, lease_ms=LEASE_MS))
    slow.reporting, slow.let_through = asyncio.Event(), asyncio.Event()
    yield slow
    await slow.close()


def advance(job: HeldJob) -> None:
    """As a step call does."""
    for row in job.rows:
        row.advance(row.tokens, 1)


async def finish_decoding(job: HeldJob) -> None:
    while any(row.remaining for row in job.rows):
        advance(job)
    job.files = {row.image: b"picture" for row in job.rows}


async def test_a_job_that_ends_during_its_report_writes_one_after_the_other(jobs: HeldJobs, queue: SlowQueue) -> None:
    job = await run(await claim(jobs, queue))
    advance(job)
    report = asyncio.create_task(Reporter(jobs, queue.settings).report())
    await queue.reporting.wait()
    await finish_decoding(job)
    completion = asyncio.create_task(job.complete())
    await asyncio.wait({completion}, timeout=0.2)
    queue.let_through.set()
    await asyncio.gather(report, completion)
    assert (await queue.view("one")).status is Status.SUCCEEDED
    assert count(jobs, "vqd_fenced_writes_total") == await queue.fenced_writes() == 0


async def test_a_job_claimed_again_has_nothing_of_its_first_claims_call(
    jobs: HeldJobs, queue: SlowQueue, stepper: Stepper, fake: FakeTriton
) -> None:
    """It was lost during a call and came back to the same worker before that call ended."""
    await stepper.health.check()
    first = await run(await claim(jobs, queue))
    stepper.add(first.rows)
    fake.hang()
    calling = asyncio.create_task(stepper.run_call(await stepper.schedule()))
    await queue.release(first.lease, None)
    first.lose(StaleEpoch("another's"))
    [lease] = await queue.take(MODEL.name, "worker", 1, 0)
    again = await run(jobs.claim(lease))
    stepper.add(again.rows)
    fake.resume()
    await calling
    assert (again.evaluation, again.calls, again.steps_s) == (0, 0, 0)
    assert stepper.decoder.take() == []
    while any(row.remaining for row in again.rows):
        await stepper.run_call(await stepper.schedule())
    await stepper.decoder.decode(stepper.decoder.take())
    assert (await queue.view("one")).status is Status.SUCCEEDED
    assert list(jobs) == []


async def test_work_that_waited_for_triton_goes_on_when_it_answers_without_new_work(
    jobs: HeldJobs, queue: SlowQueue, stepper: Stepper, fake: FakeTriton
) -> None:
    """A check failed while a call was under way, which then succeeded: nothing was handed over, and nothing comes."""
    health = stepper.health
    await health.check()
    job = await run(await claim(jobs, queue))
    stepper.add(job.rows)
    call = await stepper.schedule()
    fake.fail_next(model="text_encoder")
    await health.check()
    assert health.state == "unready"
    await stepper.run_call(call)
    next_call = asyncio.create_task(stepper.schedule())
    await asyncio.wait({next_call}, timeout=0.05)
    assert not next_call.done()
    await health.check()
    assert (await asyncio.wait_for(next_call, 5)).rows == tuple(job.rows)


async def test_checkpoints_are_as_rare_as_they_are_told_to_be(jobs: HeldJobs, queue: SlowQueue) -> None:
    queue.let_through.set()
    every_s = 0.1
    reporter = Reporter(jobs, queue.settings.model_copy(update={"checkpoint_ms": round(every_s * 1000)}))
    job = await claim(jobs, queue, n=4)
    began_s = time.monotonic()
    await run(job)
    for row in job.rows * 4:
        row.advance(row.tokens, 1)
        await reporter.report()
        await asyncio.sleep(0.02)
    saved = count(jobs, "vqd_checkpoints_total")
    assert saved is not None
    assert 1 <= saved <= (time.monotonic() - began_s) / every_s
    assert (await queue.view("one")).evaluation == 16, "the reports themselves are not so rare"


async def test_a_report_without_progress_is_made_only_to_renew(jobs: HeldJobs, queue: SlowQueue) -> None:
    queue.let_through.set()
    reporter = Reporter(jobs, queue.settings.model_copy(update={"lease_ms": 60_000}))
    job = await run(await claim(jobs, queue))
    advance(job)
    await reporter.report()
    queue.reporting.clear()
    await reporter.report()
    assert not queue.reporting.is_set()


async def test_a_triton_that_is_lost_twice_at_once_is_lost_once(
    jobs: HeldJobs, queue: SlowQueue, stepper: Stepper
) -> None:
    health: Health = stepper.health
    job = await run(await claim(jobs, queue))
    await asyncio.gather(*(health.lose_triton(TritonUnavailable("gone"), [job]) for _ in range(2)))
    assert (await queue.view("one")).status is Status.QUEUED
    assert not job.held
    assert count(jobs, "vqd_handovers_total") == 1


async def test_the_last_word_is_said_until_redis_has_heard_it(jobs: HeldJobs, queue: SlowQueue) -> None:
    job = await run(await claim(jobs, queue))
    await finish_decoding(job)
    queue.away = 2
    await job.complete()
    assert (await queue.view("one")).status is Status.SUCCEEDED
    assert list(jobs) == []


async def test_a_job_of_more_pictures_than_a_batch_gets_them_all(
    jobs: HeldJobs, queue: SlowQueue, stepper: Stepper, fake: FakeTriton
) -> None:
    await stepper.health.check()
    job = await run(await claim(jobs, queue, n=5))
    for row in job.rows:
        row.advance(np.zeros_like(row.tokens), row.remaining)
    stepper.add(job.rows)
    decoding = asyncio.create_task(stepper.decoder.run())
    await eventually(lambda: is_over(queue))
    decoding.cancel()
    await asyncio.gather(decoding, return_exceptions=True)
    result = (await queue.view("one")).result
    assert result is not None
    assert len(result.images) == 5
    assert [call.rows for call in fake.calls if call.model == "image_decoder"] == [1, 4, 1]  # the first is the check


async def is_over(queue: JobQueue) -> bool:
    return (await queue.view("one")).status.terminal


async def test_a_job_of_which_one_picture_has_not_begun_goes_on_where_it_was(jobs: HeldJobs, queue: SlowQueue) -> None:
    job = await run(await claim(jobs, queue, n=2))
    job.rows[0].advance(np.zeros_like(job.rows[0].tokens), 2)
    await job.release()
    [lease] = await queue.take(MODEL.name, "worker", 2, 0)
    again = await run(jobs.claim(lease))
    assert ([row.evaluation for row in again.rows], again.started_again) == ([2, 0], False)


# What a job says of itself


async def test_what_is_committed_is_a_share_of_all_pictures(jobs: HeldJobs, queue: SlowQueue) -> None:
    job = await run(await claim(jobs, queue, n=2))
    assert job.event().committed == 0
    job.rows[0].advance(np.zeros_like(job.rows[0].tokens), 4)
    assert job.event().committed == 0.5


async def test_evaluations_are_repeated_that_were_announced_after_the_checkpoint(
    jobs: HeldJobs, queue: SlowQueue
) -> None:
    queue.let_through.set()
    first = await run(await claim(jobs, queue))
    for evaluation in (1, 2, 3):
        advance(first)
        await queue.progress(first.lease, first.event(), first.checkpoint() if evaluation == 2 else None)
    await queue.release(first.lease, None)
    [lease] = await queue.take(MODEL.name, "worker", 1, 0)
    again = await run(jobs.claim(lease))
    assert again.evaluation == 2
    await finish_decoding(again)
    assert again.result().evaluations_repeated == 1


async def test_pictures_are_kept_in_the_order_of_their_images(jobs: HeldJobs, queue: SlowQueue) -> None:
    """They may have been decoded in any other."""
    job = await run(await claim(jobs, queue, n=3))
    job.files = {image: b"picture %d" % image for image in (2, 0, 1)}
    await job.complete()
    assert [await queue.image("one", index) for index in range(3)] == [b"picture 0", b"picture 1", b"picture 2"]


async def test_the_time_in_the_queue_is_from_the_acceptance_to_the_claim(jobs: HeldJobs, queue: SlowQueue) -> None:
    job = await run(await claim(jobs, queue))
    timings = job.result().timings
    assert timings.queue_s == (job.lease.claimed_ms - job.lease.job.created_ms) / 1000
    waited = replace(job.lease, claimed_ms=job.lease.job.created_ms + 1500)
    assert replace(job, lease=waited).result().timings.queue_s == 1.5


async def test_a_redis_that_is_away_is_one_line_not_one_per_try(
    jobs: HeldJobs, caplog: pytest.LogCaptureFixture
) -> None:
    outage = jobs.settlement.outage
    await asyncio.gather(*(outage.wait(RedisUnavailable("away")) for _ in range(5)))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert count(jobs, "vqd_redis_errors_total") == 5
