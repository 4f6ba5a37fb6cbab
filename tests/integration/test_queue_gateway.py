"""The gateway's side of the queue, on a real Redis."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from both_sides import JobQueue
from queue_support import EVALUATIONS, MODEL, eventually, make_job, make_result, opened, progress_event, worker_info

from service.errors import InvalidRequest, NotFound, QueueFull
from service.messages import Priority, Status
from service.queue import keys
from service.queue.submissions import Idempotency

pytestmark = pytest.mark.anyio


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[JobQueue]:
    async with opened(redis_url) as queue:
        yield queue


async def run_to_end(queue: JobQueue) -> None:
    [lease] = await queue.take(MODEL, "worker", 2, 0)
    await queue.complete(lease, make_result(), [b"\x89PNG\x00first", b"\xffsecond"])


async def test_an_accepted_job_reads_back_as_it_was_sent(queue: JobQueue) -> None:
    job = make_job(deadline_ms=60_000)
    assert (await queue.enqueue(job, EVALUATIONS))[:2] == (job.id, True)
    view = await queue.view(job.id)
    seconds, _ = await queue.redis.time()
    assert view.job == job.model_copy(update={"created_ms": view.job.created_ms})
    assert abs(view.job.created_ms / 1000 - seconds) < 5
    assert (view.status, view.epoch, view.attempts, view.evaluations) == (Status.QUEUED, 0, 0, EVALUATIONS)
    assert (view.started_ms, view.finished_ms, view.failure, view.result) == (None, None, None, None)
    assert await queue.redis.ttl(keys.job(job.id)) == -1


async def test_the_same_call_again_adds_nothing(queue: JobQueue) -> None:
    job = make_job()
    assert [(await queue.enqueue(job, EVALUATIONS))[:2] for _ in range(2)] == [(job.id, True)] * 2
    assert await queue.redis.zcard(keys.order(MODEL, "interactive")) == 1
    assert len(await queue.take(MODEL, "worker", 10, 0)) == 1


async def test_fifty_parallel_calls_with_one_key_make_one_job(queue: JobQueue) -> None:
    once = Idempotency("caller:key", "a" * 64)
    answers = await asyncio.gather(*(queue.enqueue(make_job(), EVALUATIONS, once) for _ in range(50)))
    assert len({answer.job_id for answer in answers}) == 1
    assert [answer.created for answer in answers].count(True) == 1
    assert await queue.depths(MODEL) == {"interactive": 1, "batch": 0}
    assert len(await queue.take(MODEL, "worker", 100, 0)) == 1


async def test_a_key_with_another_payload_is_refused(queue: JobQueue) -> None:
    await queue.enqueue(make_job(), EVALUATIONS, Idempotency("caller:key", "a" * 64))
    with pytest.raises(InvalidRequest) as refused:
        await queue.enqueue(make_job(), EVALUATIONS, Idempotency("caller:key", "b" * 64))
    assert refused.value.field == "Idempotency-Key"
    other = await queue.enqueue(make_job(), EVALUATIONS, Idempotency("other caller:key", "b" * 64))
    assert other.created
    assert 0 < await queue.redis.ttl(keys.idempotency("caller:key")) <= queue.settings.idempotency_ttl_s


async def test_a_full_queue_refuses_both_classes_and_still_answers_old_keys(redis_url: str) -> None:
    async with opened(redis_url, queue_capacity=3) as queue:
        once = Idempotency("key", "a")
        first = (await queue.enqueue(make_job(), EVALUATIONS, once)).job_id
        for priority in Priority:
            await queue.enqueue(make_job(priority), EVALUATIONS)
        refused = [make_job(priority) for priority in Priority]
        for job in refused:
            with pytest.raises(QueueFull) as full:
                await queue.enqueue(job, EVALUATIONS)
            assert full.value.retry_after_s >= 1
            with pytest.raises(NotFound):
                await queue.view(job.id)
        assert (await queue.enqueue(make_job(), EVALUATIONS, once))[:2] == (first, False)
        assert await queue.depths(MODEL) == {"interactive": 2, "batch": 1}
        await run_to_end(queue)
        assert (await queue.enqueue(make_job(), EVALUATIONS)).created


async def test_running_jobs_count_towards_the_capacity(redis_url: str) -> None:
    async with opened(redis_url, queue_capacity=1) as queue:
        await queue.enqueue(make_job(), EVALUATIONS)
        await queue.take(MODEL, "worker", 2, 0)
        with pytest.raises(QueueFull):
            await queue.enqueue(make_job(), EVALUATIONS)


@pytest.mark.parametrize("priority", Priority)
async def test_cancelling_frees_a_place_and_leaves_nothing_that_grows(redis_url: str, priority: Priority) -> None:
    async with opened(redis_url, queue_capacity=2) as queue:
        for _ in range(4):
            job = make_job(priority)
            await queue.enqueue(job, EVALUATIONS)
            await queue.cancel(job.id)
        assert await queue.redis.zcard(keys.order(MODEL, priority)) == 0
        assert not await queue.redis.exists(keys.stream(MODEL, priority))


async def test_a_cancelled_queued_job_never_runs(queue: JobQueue) -> None:
    cancelled, kept = make_job(), make_job()
    for job in (cancelled, kept):
        await queue.enqueue(job, EVALUATIONS)
    stream = keys.stream(MODEL, "interactive")
    assert await queue.cancel(cancelled.id) is Status.CANCELLED
    assert await queue.redis.zrange(keys.order(MODEL, "interactive"), 0, -1) == [kept.id.encode()]
    assert await queue.depths(MODEL) == {"interactive": 1, "batch": 0}
    [(last_id, last)] = await queue.events(cancelled.id)
    assert (last_id, last.status) == ("0-1", Status.CANCELLED)

    leases = await queue.take(MODEL, "worker", 4, 0)
    assert [lease.job.id for lease in leases] == [kept.id]
    assert [entry.decode() for entry, _ in await queue.redis.xrange(stream)] == [leases[0].entry_id]
    view = await queue.view(cancelled.id)
    assert (view.status, view.epoch, view.started_ms) == (Status.CANCELLED, 0, None)
    [group] = await queue.redis.xinfo_groups(stream)
    assert group["pending"] == 1
    assert group.get("lag", 0) == 0  # Redis ≥ 7 has it; None is the failure


async def test_a_place_whose_record_is_gone_is_cleared_away(queue: JobQueue) -> None:
    job = make_job()
    await queue.enqueue(job, EVALUATIONS)
    await queue.redis.delete(keys.job(job.id))
    assert await queue.take(MODEL, "worker", 2, 0) == []
    assert await queue.redis.zcard(keys.order(MODEL, "interactive")) == 0
    assert await queue.redis.xlen(keys.stream(MODEL, "interactive")) == 0


async def test_cancelling_an_ended_job_changes_nothing(queue: JobQueue) -> None:
    job = make_job()
    await queue.enqueue(job, EVALUATIONS)
    await run_to_end(queue)
    before = await queue.view(job.id), await queue.events(job.id)
    assert await queue.cancel(job.id) is Status.SUCCEEDED
    assert (await queue.view(job.id), await queue.events(job.id)) == before


async def test_the_unknown_is_not_found(queue: JobQueue) -> None:
    for asked in (queue.view("no"), queue.cancel("no"), queue.events("no"), queue.image("no", 0)):
        with pytest.raises(NotFound):
            await asked


async def test_a_finished_job_leaves_its_images_and_everything_expires(queue: JobQueue) -> None:
    job = make_job()
    await queue.enqueue(job, EVALUATIONS)
    await run_to_end(queue)
    assert [await queue.image(job.id, index) for index in range(2)] == [b"\x89PNG\x00first", b"\xffsecond"]
    with pytest.raises(NotFound):
        await queue.image(job.id, 2)
    view = await queue.view(job.id)
    assert (view.status, view.result, view.committed) == (Status.SUCCEEDED, make_result(), 1.0)
    assert view.started_ms is not None
    assert view.finished_ms is not None
    assert view.job.created_ms <= view.started_ms <= view.finished_ms
    for key in (keys.job(job.id), keys.events(job.id), keys.images(job.id)):
        assert 0 < await queue.redis.ttl(key) <= queue.settings.result_ttl_s
    assert await queue.depths(MODEL) == {"interactive": 0, "batch": 0}
    assert await queue.redis.xlen(keys.stream(MODEL, "interactive")) == 0


async def test_the_oldest_waiting_job_sets_the_age_of_its_class(queue: JobQueue) -> None:
    assert await queue.oldest_s(MODEL) == {"interactive": 0, "batch": 0}
    jobs = [make_job(Priority.BATCH), make_job(Priority.BATCH)]
    await queue.enqueue(jobs[0], EVALUATIONS)

    async def aged() -> bool:
        return (await queue.oldest_s(MODEL))["batch"] > 0.2

    await eventually(aged)
    await queue.enqueue(jobs[1], EVALUATIONS)
    assert (await queue.oldest_s(MODEL))["batch"] > 0.2
    await queue.take(MODEL, "worker", 2, 0)
    assert (await queue.oldest_s(MODEL))["batch"] < 0.2
    await queue.take(MODEL, "worker", 2, 0)
    assert await queue.oldest_s(MODEL) == {"interactive": 0, "batch": 0}


async def test_events_resume_without_gap_or_repeat(queue: JobQueue) -> None:
    job = make_job()
    await queue.enqueue(job, EVALUATIONS)
    [lease] = await queue.take(MODEL, "worker", 2, 0)
    seen: list[tuple[str, int]] = []

    async def read_on() -> None:
        new = await queue.events(job.id, seen[-1][0] if seen else "")
        seen.extend((event_id, event.evaluation) for event_id, event in new)

    for evaluation in range(1, EVALUATIONS + 1):
        await queue.progress(lease, progress_event(evaluation), None)
        if evaluation in (1, 4, 5, 10):
            await read_on()
    await queue.complete(lease, make_result(), [])
    await read_on()
    everything = await queue.events(job.id)
    assert seen == [(event_id, event.evaluation) for event_id, event in everything]
    assert [evaluation for _, evaluation in seen] == [*range(1, EVALUATIONS + 1), EVALUATIONS]
    assert [event.status for _, event in everything] == [Status.RUNNING] * EVALUATIONS + [Status.SUCCEEDED]
    assert everything[3][1] == progress_event(4)
    assert await queue.events(job.id, seen[-1][0]) == []


@pytest.mark.parametrize("after", ["x", "-", "1", "1-0-0", "-1-0", "9" * 30 + "-0", "\u0661-0", "1-0\n"])
async def test_a_wrong_event_id_is_named(queue: JobQueue, after: str) -> None:
    job = make_job()
    await queue.enqueue(job, EVALUATIONS)
    with pytest.raises(InvalidRequest) as refused:
        await queue.events(job.id, after)
    assert refused.value.field == "Last-Event-ID"


async def test_registrations_live_until_their_time_or_until_withdrawn(queue: JobQueue) -> None:
    for worker_id, ttl_ms in (("a", 60_000), ("b", 60_000), ("short", 50)):
        await queue.register(worker_info(worker_id), ttl_ms)
    assert worker_info("a") in await queue.workers()

    async def short_gone() -> bool:
        return [worker.id for worker in await queue.workers()] == ["a", "b"]

    await eventually(short_gone)
    await queue.unregister("a")
    await queue.unregister("never seen")
    assert await queue.workers() == [worker_info("b")]


async def test_a_cancelled_call_stays_cancelled_whenever_it_is_cancelled(queue: JobQueue) -> None:
    """``asyncio.wait_for`` of Python 3.11, which redis-py uses for its own timeouts, loses some cancellations."""
    job = make_job()
    await queue.enqueue(job, EVALUATIONS)

    async def watch_for_ever() -> None:
        while True:
            await queue.view(job.id)
            await asyncio.sleep(60)

    for turns in range(30):
        watching = asyncio.create_task(watch_for_ever())
        for _ in range(turns):
            await asyncio.sleep(0)
        watching.cancel()
        await asyncio.wait([watching], timeout=1)
        assert watching.cancelled(), f"cancelled in turn {turns} of the event loop"
