"""What a job's record keeps and loses in the course of its life, and claims that come at once: on a real Redis."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest
from both_sides import JobQueue, failing
from queue_support import (
    EVALUATIONS,
    MODEL,
    checkpoint_at,
    eventually,
    idle_ms,
    make_job,
    make_result,
    opened,
    progress_event,
    worker_info,
)

from service.errors import DeadlinePassed, StaleEpoch
from service.messages import Job, Status
from service.queue import keys
from service.queue.leases import Lease
from service.queue.scripts import PREPARE
from service.queue.submissions import Idempotency

pytestmark = pytest.mark.anyio

LEASE_MS = 100


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[JobQueue]:
    """The process whose worker is lost."""
    async with opened(redis_url, lease_ms=LEASE_MS) as queue:
        yield queue


async def lose(queue: JobQueue, count: int) -> list[Lease]:
    """Jobs whose worker is silent for more than a lease."""
    for _ in range(count):
        await queue.enqueue(make_job(), EVALUATIONS)
    lost = await queue.take(MODEL, "lost", 2 * count, 0)

    async def silent() -> bool:
        return min([await idle_ms(queue, lease.stream, lease.entry_id) for lease in lost]) > LEASE_MS

    await eventually(silent)
    return lost


async def test_a_job_began_when_its_first_worker_took_it(queue: JobQueue, redis_url: str) -> None:
    [lease] = await lose(queue, 1)
    began_ms = (await queue.view(lease.job.id)).started_ms
    async with opened(redis_url, lease_ms=LEASE_MS) as rescuer:
        assert len(await rescuer.recover(MODEL, "rescuer", 2)) == 1
        assert (await rescuer.view(lease.job.id)).started_ms == began_ms


@pytest.mark.parametrize("end", ["complete", "fail", "cancelled"])
async def test_the_checkpoint_of_a_job_that_ended_is_gone(queue: JobQueue, end: str) -> None:
    """It may be the largest thing in the record, and nobody reads it any more."""
    await queue.enqueue(make_job(), EVALUATIONS)
    [lease] = await queue.take(MODEL, "worker", 2, 0)
    await queue.progress(lease, progress_event(2), checkpoint_at(2))
    assert await queue.redis.hexists(keys.job(lease.job.id), "checkpoint")
    if end == "complete":
        await queue.complete(lease, make_result(), [b"one", b"two"])
    else:
        await (queue.fail(lease, failing("reason")) if end == "fail" else queue.cancelled(lease))
    assert not await queue.redis.hexists(keys.job(lease.job.id), "checkpoint")


@pytest.mark.parametrize("turns", range(0, 30, 3))
async def test_a_worker_that_takes_and_recovers_at_once_gets_each_job_once(
    queue: JobQueue, redis_url: str, turns: int
) -> None:
    """Its first take looks for entries in its own name, into which recovery has just put some."""
    lost = await lose(queue, 4)
    async with opened(redis_url, lease_ms=LEASE_MS) as rescuer:
        recovering = asyncio.create_task(rescuer.recover(MODEL, "rescuer", 8))
        for _ in range(turns):
            await asyncio.sleep(0)
        leases = await rescuer.take(MODEL, "rescuer", 8, 0) + await recovering
        assert sorted(lease.job.id for lease in leases) == sorted(lease.job.id for lease in lost)
        assert all([await rescuer.renew(lease) for lease in leases])


async def start(queue: JobQueue, deadline_ms: int | None = None) -> Lease:
    await queue.enqueue(make_job(deadline_ms=deadline_ms), EVALUATIONS)
    [lease] = await queue.take(MODEL, "worker", 2, 0)
    return lease


async def test_a_finished_job_has_done_all_its_evaluations(queue: JobQueue) -> None:
    """Whatever its last report said: the end may come before the next."""
    lease = await start(queue)
    await queue.progress(lease, progress_event(3), None)
    await queue.complete(lease, make_result(), [b"one", b"two"])
    assert (await queue.view(lease.job.id)).evaluation == EVALUATIONS
    assert (await queue.events(lease.job.id))[-1][0] == f"{EVALUATIONS}-1"


async def test_a_checkpoint_is_kept_without_news(queue: JobQueue) -> None:
    """As a resumed job writes it, that is not yet where the lost worker was."""
    lease = await start(queue)
    await queue.progress(lease, progress_event(4), checkpoint_at(3))
    await queue.progress(lease, progress_event(2), checkpoint_at(2))
    await queue.release(lease, None)
    [again] = await queue.take(MODEL, "other", 2, 0)
    assert (again.checkpoint, again.evaluation) == (checkpoint_at(2), 4)


async def test_what_is_cancelled_after_it_was_handed_over_is_cleared_away_by_the_next_look(queue: JobQueue) -> None:
    jobs = [make_job() for _ in range(4)]
    for job in jobs:
        await queue.enqueue(job, EVALUATIONS)
    for lease in await queue.take(MODEL, "worker", 2 * len(jobs), 0):
        await queue.release(lease, None)
        await queue.cancel(lease.job.id)
    assert await queue.redis.xlen(keys.stream(MODEL, keys.HANDOVER)) == len(jobs)
    assert await queue.take(MODEL, "other", 2, 0) == []
    assert await queue.redis.xlen(keys.stream(MODEL, keys.HANDOVER)) == 0


async def test_a_lost_worker_is_fenced_from_a_job_that_ended_cancelled(queue: JobQueue, redis_url: str) -> None:
    [lease] = await lose(queue, 1)
    await queue.cancel(lease.job.id)
    async with opened(redis_url, lease_ms=LEASE_MS) as rescuer:
        assert await rescuer.recover(MODEL, "rescuer", 2) == []
    with pytest.raises(StaleEpoch):
        await queue.release(lease, checkpoint_at(1))


async def test_a_lost_job_past_its_deadline_fails_instead_of_going_on(queue: JobQueue, redis_url: str) -> None:
    lease = await start(queue, deadline_ms=LEASE_MS)

    async def silent() -> bool:
        return await idle_ms(queue, lease.stream, lease.entry_id) > 2 * LEASE_MS

    await eventually(silent)
    async with opened(redis_url, lease_ms=LEASE_MS) as rescuer:
        assert await rescuer.recover(MODEL, "rescuer", 2) == []
    view = await queue.view(lease.job.id)
    assert view.status is Status.FAILED
    assert "deadline" in str(view.failure)


async def test_a_late_job_whose_worker_is_silent_ends_when_anyone_looks(queue: JobQueue, redis_url: str) -> None:
    """Not as soon as it is late: a worker that lives is about to say so."""
    lease = await start(queue, deadline_ms=LEASE_MS)
    made_ms = (await queue.view(lease.job.id)).job.created_ms

    async def ended() -> bool:
        return (await queue.view(lease.job.id)).status.terminal

    await eventually(ended)
    view = await queue.view(lease.job.id)
    assert view.failure is not None
    assert view.failure.kind == DeadlinePassed.slug
    assert (view.finished_ms or 0) > made_ms + 2 * LEASE_MS
    with pytest.raises(StaleEpoch):
        await queue.complete(lease, make_result(), [b"one", b"two"])
    async with opened(redis_url, lease_ms=LEASE_MS) as rescuer:
        assert await rescuer.recover(MODEL, "rescuer", 2) == []
    assert await queue.redis.xlen(lease.stream) == 0


async def test_a_job_that_is_finished_too_late_has_failed(queue: JobQueue) -> None:
    """Also one that was too short for a report."""
    lease = await start(queue, deadline_ms=LEASE_MS)
    made_ms = (await queue.view(lease.job.id)).job.created_ms

    async def late() -> bool:
        seconds, micros = await queue.redis.time()
        return seconds * 1000 + micros / 1000 > made_ms + LEASE_MS + 1

    await eventually(late)
    with pytest.raises(DeadlinePassed):
        await queue.complete(lease, make_result(), [b"one", b"two"])
    view = await queue.view(lease.job.id)
    assert (view.status, view.result) == (Status.FAILED, None)
    assert view.failure is not None
    assert view.failure.kind == DeadlinePassed.slug
    assert await queue.redis.xlen(lease.stream) == 0
    assert await queue.fenced_writes() == 0


async def test_a_dead_letter_can_be_posted_again_for_a_week(redis_url: str) -> None:
    """Not for ever: it holds a prompt."""
    week_s = 7 * 86400
    async with opened(redis_url, lease_ms=LEASE_MS, max_attempts=1) as queue:
        [lease] = await lose(queue, 1)
        month_ago_ms = round((time.time() - 30 * 86400) * 1000)
        await queue.redis.xadd(keys.dead(MODEL), {"record": "of last month"}, id=f"{month_ago_ms}-0")
        async with opened(redis_url, lease_ms=LEASE_MS, max_attempts=1) as rescuer:
            [again] = await rescuer.recover(MODEL, "rescuer", 2)
            await rescuer.begin_trial(again)
            rescuer.forget(again)

            async def given_up() -> bool:
                assert await rescuer.recover(MODEL, "rescuer", 2) == []
                return await rescuer.dead_lettered() == 1

            await eventually(given_up)
        [(_, letter)] = await queue.redis.xrange(keys.dead(MODEL))
        assert Job.model_validate_json(letter[b"record"]).prompt == lease.job.prompt
        assert week_s - 60 < await queue.redis.ttl(keys.dead(MODEL)) <= week_s


async def test_a_dead_letter_of_what_was_no_job_is_kept_no_longer(queue: JobQueue) -> None:
    await queue.redis.xadd(keys.stream(MODEL, "interactive"), {"prompt": "of another version"})
    assert await queue.take(MODEL, "worker", 2, 0) == []
    assert await queue.redis.ttl(keys.dead(MODEL)) > 0


async def test_what_a_worker_cannot_read_is_counted_by_kind(queue: JobQueue) -> None:
    kinds: list[str] = []
    queue.store.records.on_unreadable = kinds.append
    await queue.redis.xadd(keys.stream(MODEL, "interactive"), {"job": "x", "priority": "bulk"})
    newer, resumed = make_job(), make_job()
    for job in (newer, resumed):
        await queue.enqueue(job, EVALUATIONS)
    record = json.loads(newer.model_dump_json())
    record["parameters"]["newer"] = 1
    await queue.redis.hset(keys.job(newer.id), "job", json.dumps(record))
    await queue.redis.hset(keys.job(resumed.id), "checkpoint", "{}")
    [lease] = await queue.take(MODEL, "worker", 4, 0)
    assert (lease.job.id, lease.checkpoint) == (resumed.id, None)
    assert sorted(kinds) == ["checkpoint", "entry", "job"]


async def test_only_consumers_that_were_idle_for_long_are_forgotten(queue: JobQueue) -> None:
    await queue.take(MODEL, "idle", 2, 0)
    stream = keys.stream(MODEL, "interactive")
    await queue.redis.xgroup_createconsumer(stream, keys.GROUP, "new")
    for idle, left in ((60_000, [b"new"]), (-1, [])):
        await queue.store.run(PREPARE, PREPARE.call({"stream": stream}, {"group": keys.GROUP, "idle_ms": idle}))
        names = [row["name"] for row in await queue.redis.xinfo_consumers(stream, keys.GROUP)]
        assert [name for name in names if name == b"new"] == left


async def test_a_registration_lives_as_long_as_its_last_word_says(queue: JobQueue) -> None:
    await queue.register(worker_info("a"), ttl_ms=60_000)
    await queue.register(worker_info("a"), ttl_ms=1)

    async def gone() -> bool:
        return not await queue.workers()

    await eventually(gone)


async def test_an_idempotency_key_outlives_its_jobs_result(queue: JobQueue) -> None:
    await queue.enqueue(make_job(), EVALUATIONS, Idempotency("key", "payload"))
    assert await queue.redis.ttl(keys.idempotency("key")) > queue.settings.result_ttl_s


async def test_a_model_is_known_from_its_first_worker_on(queue: JobQueue) -> None:
    assert not await queue.was_served("later")
    await queue.take("later", "worker", 1, 0)
    assert await queue.was_served("later")
