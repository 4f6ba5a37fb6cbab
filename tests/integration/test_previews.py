"""Previews of what is in progress, made by the worker's part for it: when, and that nobody ever waits for one."""

import asyncio
import base64
import io
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest
import test_worker_jobs as worker_jobs
from both_sides import JobQueue
from gateway_harness import MODEL
from PIL import Image
from queue_support import eventually, make_job
from redis.asyncio.client import PubSub
from test_worker_jobs import claim, count, run

from service.messages import Status
from service.queue import keys
from service.queue.previews import Preview, PreviewsFor, Shown
from service.testing.fake_triton import FakeTriton
from service.worker.job import HeldJob, State
from service.worker.jobs import HeldJobs
from service.worker.painting import GREY
from service.worker.previews import SHARE, SHARE_ALONE, Previews
from service.worker.reporter import Reporter
from service.worker.stepper import Stepper

pytestmark = pytest.mark.anyio
jobs, queue, fake, stepper = worker_jobs.jobs, worker_jobs.queue, worker_jobs.fake, worker_jobs.stepper
SLOW = {"steps": 32, "tokens_per_step": 2}


@pytest.fixture
async def previews(jobs: HeldJobs, queue: JobQueue, stepper: Stepper) -> AsyncIterator[Previews]:
    """The running part, with a stepper that does one evaluation a call."""
    await stepper.health.check()
    stepper.scheduler.call_target_s = 0
    part = Previews(stepper, queue, every=4)
    task = asyncio.create_task(part.run())
    yield part
    assert not task.done(), task
    task.cancel()


async def begin(jobs: HeldJobs, queue: JobQueue, stepper: Stepper, job_id: str = "one", **changes: object) -> HeldJob:
    job = await run(await claim(jobs, queue, job_id, **{**SLOW, **changes}))
    stepper.add(job.rows)
    return job


async def watch(jobs: HeldJobs, queue: JobQueue, job: HeldJob) -> None:
    """As a listener's wish gets to the worker: with the answer to a report."""
    await queue.ask_previews(job.id, PreviewsFor.ASKERS)
    assert await queue.renew(job.lease)
    assert job.id in queue.watched


async def step(stepper: Stepper, calls: int = 1) -> None:
    for _ in range(calls):
        await stepper.run_call(await stepper.schedule())


def decodings(fake: FakeTriton) -> int:
    """But for that of the check."""
    return sum(call.model == "image_decoder" for call in fake.calls) - 1


async def shown(queue: JobQueue, job: HeldJob, pictures: int = 1) -> tuple[Preview, ...]:
    async def there() -> bool:
        return len(await queue.previews(job.id)) == pictures

    await eventually(there)
    return await queue.previews(job.id)


def pixels(preview: Preview) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(preview.b64_png))))


async def test_nothing_is_made_when_nobody_asks(
    jobs: HeldJobs, queue: JobQueue, stepper: Stepper, fake: FakeTriton, previews: Previews
) -> None:
    job = await begin(jobs, queue, stepper)
    await step(stepper, 12)
    assert await queue.renew(job.lease)
    await step(stepper, 12)
    assert (previews.sights, previews.stepped.is_set(), decodings(fake)) == ({}, False, 0)
    assert not await queue.redis.hexists(keys.job("one"), "previews")


async def test_who_asks_gets_every_picture_as_it_is_with_what_is_masked_in_grey(
    jobs: HeldJobs, queue: JobQueue, stepper: Stepper, previews: Previews
) -> None:
    job = await begin(jobs, queue, stepper, n=2, image_index=5)
    await watch(jobs, queue, job)
    await step(stepper, 4)
    first, second = await shown(queue, job, 2)
    assert (first.index, second.index) == (0, 1)
    for row, preview in zip(job.rows, (first, second), strict=True):
        grey = (pixels(preview) == GREY).all(-1).reshape(8, 8, 8, 8).all((1, 3))
        assert np.array_equal(grey.ravel(), row.tokens == MODEL.codes)
        assert 0 < grey.sum() < 64
        assert Image.open(io.BytesIO(base64.b64decode(preview.purity_map))).size == (8, 8)
    assert count(jobs, "vqd_previews_total") == 2


async def test_they_come_after_so_many_evaluations_and_are_made_together(
    jobs: HeldJobs, queue: JobQueue, stepper: Stepper, fake: FakeTriton, previews: Previews
) -> None:
    one, two, unseen = [await begin(jobs, queue, stepper, name) for name in ("one", "two", "unseen")]
    for job in (one, two):
        await watch(jobs, queue, job)
    await step(stepper, 3)
    await asyncio.sleep(0)
    assert decodings(fake) == 0
    await step(stepper)
    before = [*await shown(queue, one), *await shown(queue, two)]
    assert decodings(fake) == 1
    previews.rests_until_s = 0
    await step(stepper, 3)
    assert [*await queue.previews("one"), *await queue.previews("two")] == before
    previews.rests_until_s = 0
    await step(stepper)
    await eventually(lambda: some(decodings(fake) == 2))
    assert [call.rows for call in fake.calls if call.model == "image_decoder"][1:] == [2, 2]
    assert not previews.sights.keys() & {*unseen.rows}


async def test_a_worker_knows_of_a_wish_from_its_claim_on(jobs: HeldJobs, queue: JobQueue) -> None:
    """A short job would be over before the answer to its first report."""
    for job_id, previews in (("watched", PreviewsFor.ASKERS), ("unseen", None)):
        await queue.enqueue(job := make_job(job_id=job_id), 4, previews=previews)
    assert len(await queue.take(job.model, "worker", 8, 0)) == 2
    assert queue.watched == {"watched"}
    assert await queue.redis.hget(keys.job("watched"), "preview") == b"askers"


@pytest.mark.parametrize(("steps", "calls"), [(32, 4), (8, 4), (4, 2), (3, 2), (2, 1)])
async def test_the_calls_of_a_watched_job_that_is_alone_end_where_there_is_something_to_show(
    jobs: HeldJobs, queue: JobQueue, stepper: Stepper, previews: Previews, steps: int, calls: int
) -> None:
    stepper.scheduler.call_target_s = 1000
    job = await begin(jobs, queue, stepper, steps=steps, tokens_per_step=64 // steps)
    assert stepper.pace() is None
    await watch(jobs, queue, job)
    assert stepper.pace() == calls
    stepper.scheduler.times.record(1, 0.01)
    call = await stepper.schedule()
    assert call.evaluations == calls
    await stepper.run_call(call)
    previews.rests_until_s = time.monotonic() + 1000  # nothing could be shown meanwhile
    assert stepper.pace() > 32
    other = await begin(jobs, queue, stepper, "other")
    assert stepper.pace() is None, "who did not ask pays nothing"
    other.enter(State.STORING)
    assert stepper.pace(), "who waits for a slow storage waits for no call"
    await other.cancel()
    assert stepper.pace()


async def test_a_rest_that_is_of_one_job_ends_with_it(
    jobs: HeldJobs, queue: JobQueue, stepper: Stepper, fake: FakeTriton, previews: Previews
) -> None:
    """Or the next short one would have none."""
    for number in range(2):
        job = await begin(jobs, queue, stepper, f"job-{number}")
        await watch(jobs, queue, job)
        await step(stepper, 3)
        fake.delay_s = 0.05  # a rest of half a second
        await step(stepper)
        await shown(queue, job)
        fake.delay_s = 0
        assert previews.rest_s > 0.1
        job.enter(State.STORING)
        assert previews.rest_s == 0
        await job.cancel()


async def test_who_follows_hears_of_each(jobs: HeldJobs, queue: JobQueue, stepper: Stepper, previews: Previews) -> None:
    job = await begin(jobs, queue, stepper)
    async with queue.redis.pubsub(ignore_subscribe_messages=True) as heard:
        await heard.subscribe(keys.CHANNEL)
        await queue.show_all([(job.lease, Shown(pictures=()))])
        await eventually(lambda: said(heard, "one"))


async def said(heard: PubSub, job_id: str) -> bool:
    message = await heard.get_message()
    return bool(message and message["data"] == job_id.encode())


async def some(value: bool) -> bool:
    return value


@pytest.mark.parametrize("busy", ["decoding", "to decode", "a trial", "draining", "resting"])
async def test_none_is_made_while_there_is_something_else_to_do(
    jobs: HeldJobs, queue: JobQueue, stepper: Stepper, fake: FakeTriton, previews: Previews, busy: str
) -> None:
    job = await begin(jobs, queue, stepper)
    await watch(jobs, queue, job)
    match busy:
        case "decoding":
            await stepper.decoder.lock.acquire()
        case "to decode":
            stepper.decoder.rows.append(job.rows[0])
        case "a trial":
            await stepper.inference.turns.beside.acquire()
        case "resting":
            previews.rests_until_s = time.monotonic() + 60
    await step(stepper, 8)
    if busy == "draining":
        decoded = decodings(fake)
        stepper.health.stop()
        previews.sights[job.rows[0]].evaluation = 0
        previews.rests_until_s = 0
        previews.stepped.set()
    await eventually(lambda: some(not previews.stepped.is_set()))
    assert decodings(fake) == (decoded if busy == "draining" else 0)


async def test_no_step_waits_for_a_preview_and_no_turn_is_taken(
    jobs: HeldJobs, queue: JobQueue, stepper: Stepper, fake: FakeTriton, previews: Previews
) -> None:
    """The decoder hangs, and all evaluations are done meanwhile."""
    job = await begin(jobs, queue, stepper)
    await watch(jobs, queue, job)
    async with fake.locks["image_decoder"]:
        await step(stepper, 4)
        await eventually(lambda: some(decodings(fake) == 1))
        assert stepper.inference.turns.free
        while job.rows[0].remaining:
            await step(stepper)
        assert job.state is State.DECODING
    await stepper.decoder.decode(stepper.decoder.take())
    assert (await queue.view("one")).status is Status.SUCCEEDED


async def test_who_wants_to_be_alone_waits_for_a_preview(stepper: Stepper, fake: FakeTriton) -> None:
    """Else a trial would not know whose fault it is."""
    turns = stepper.inference.turns
    async with fake.locks["image_decoder"]:
        making = asyncio.create_task(stepper.inference.preview(np.zeros((1, MODEL.tokens), np.int32)))
        await eventually(lambda: some(turns.beside.locked()))
        trial = asyncio.create_task(turns.all().__aenter__())
        await asyncio.sleep(0)
        assert not trial.done()
    await making
    await trial
    assert turns.beside.locked()


async def test_a_preview_that_fails_is_no_fault_of_the_job(
    jobs: HeldJobs, queue: JobQueue, stepper: Stepper, fake: FakeTriton, previews: Previews
) -> None:
    job = await begin(jobs, queue, stepper)
    await watch(jobs, queue, job)
    fake.fail_next(model="image_decoder")
    await step(stepper, 4)
    await eventually(lambda: some(previews.rests_until_s > time.monotonic() + 5))
    assert await queue.previews("one") == ()
    assert count(jobs, "vqd_triton_errors_total", kind="invalid") == 1
    while job.rows[0].remaining:
        await step(stepper)
    assert decodings(fake) == 1, "it rests"
    await stepper.decoder.decode(stepper.decoder.take())
    assert (await queue.view("one")).status is Status.SUCCEEDED


@pytest.mark.parametrize(("others", "share"), [(0, SHARE_ALONE), (1, SHARE)])
async def test_they_take_no_more_than_their_share_of_the_time(
    jobs: HeldJobs, queue: JobQueue, stepper: Stepper, fake: FakeTriton, previews: Previews, others: int, share: float
) -> None:
    job = await begin(jobs, queue, stepper)
    for number in range(others):
        await begin(jobs, queue, stepper, f"other-{number}")
    await watch(jobs, queue, job)
    await step(stepper, 3)
    fake.delay_s = 0.05
    began_s = time.monotonic()
    await step(stepper)
    await shown(queue, job)
    most_s = time.monotonic() - began_s - fake.delay_s  # but for the step
    assert fake.delay_s / share <= previews.rests_until_s - began_s <= fake.delay_s + most_s + most_s / share


async def test_what_ended_has_none_and_gets_none(
    jobs: HeldJobs, queue: JobQueue, stepper: Stepper, previews: Previews
) -> None:
    job = await begin(jobs, queue, stepper)
    await watch(jobs, queue, job)
    await step(stepper, 4)
    await shown(queue, job)
    await job.cancel()
    assert queue.watched == set()
    await queue.ask_previews("one", PreviewsFor.EVERYBODY)
    await queue.ask_previews("unknown", PreviewsFor.EVERYBODY)
    await queue.show_all([(job.lease, Shown(pictures=()))])
    assert await queue.redis.hmget(keys.job("one"), ["preview", "previews"]) == [None, None]
    assert not await queue.redis.exists(keys.job("unknown"))


async def test_a_wish_for_everybody_stays(jobs: HeldJobs, queue: JobQueue) -> None:
    await claim(jobs, queue)
    seen = []
    for whose in (PreviewsFor.ASKERS, PreviewsFor.EVERYBODY, PreviewsFor.ASKERS):
        await queue.ask_previews("one", whose)
        seen.append((await queue.view("one")).previews)
    assert seen == [False, True, True]


async def test_another_worker_goes_on_with_them(
    jobs: HeldJobs, queue: JobQueue, stepper: Stepper, previews: Previews
) -> None:
    job = await begin(jobs, queue, stepper)
    await watch(jobs, queue, job)
    await step(stepper, 4)
    before = await shown(queue, job)
    await job.release()
    assert await queue.previews("one") == before
    [lease] = await queue.take(MODEL.name, "worker", 1, 0)
    await queue.show_all([(job.lease, Shown(pictures=()))])
    assert await queue.previews("one") == before, "the old one has no say"
    assert await queue.renew(lease)
    assert queue.watched == {"one"}


async def test_they_make_way_when_memory_is_short(
    jobs: HeldJobs, queue: JobQueue, stepper: Stepper, previews: Previews
) -> None:
    job = await begin(jobs, queue, stepper)
    used = (await queue.redis.info("memory"))["used_memory"]
    await queue.redis.config_set("maxmemory", int(used / 0.9))
    try:
        await watch(jobs, queue, job)
        await queue.show_all([(job.lease, Shown(pictures=()))])
        assert not await queue.redis.hexists(keys.job("one"), "previews")
    finally:
        await queue.redis.config_set("maxmemory", 0)


async def test_a_cancel_comes_before_a_wish(jobs: HeldJobs, queue: JobQueue, stepper: Stepper) -> None:
    await stepper.health.check()
    job = await begin(jobs, queue, stepper)
    await watch(jobs, queue, job)
    await queue.cancel("one")
    await step(stepper)
    await Reporter(jobs, queue.settings).report()
    assert (await queue.view("one")).status is Status.CANCELLED


async def test_a_setting_turns_them_off(jobs: HeldJobs, queue: JobQueue, stepper: Stepper, fake: FakeTriton) -> None:
    await stepper.health.check()
    stepper.scheduler.call_target_s = 0
    off = Previews(stepper, queue, every=0)
    job = await begin(jobs, queue, stepper)
    await watch(jobs, queue, job)
    await step(stepper, 8)
    assert (off.stepped.is_set(), off.sights, decodings(fake)) == (False, {}, 0)
