"""The worker's side of the queue while all goes well, on a real Redis."""

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
from service.messages import Priority, Status
from service.queue import keys
from service.queue.leases import Lease
from service.queue.scripts import PREPARE

pytestmark = pytest.mark.anyio


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[JobQueue]:
    async with opened(redis_url) as queue:
        yield queue


async def start(queue: JobQueue, priority: Priority = Priority.INTERACTIVE) -> Lease:
    job = make_job(priority)
    await queue.enqueue(job, EVALUATIONS)
    [lease] = await queue.take(MODEL, "worker", 2, 0)
    assert lease.job.id == job.id
    return lease


async def test_a_lease_carries_the_job(queue: JobQueue) -> None:
    lease = await start(queue)
    view = await queue.view(lease.job.id)
    assert lease.job == view.job
    assert lease.job.created_ms > 0
    assert (lease.epoch, lease.attempts, lease.evaluation, lease.checkpoint) == (1, 1, 0, None)
    assert (view.status, view.epoch, view.attempts) == (Status.RUNNING, 1, 1)


async def test_the_order_is_handed_over_then_interactive_then_batch(queue: JobQueue) -> None:
    given_back = await start(queue, Priority.BATCH)
    jobs = [make_job(priority) for priority in (Priority.BATCH, Priority.INTERACTIVE) for _ in range(2)]
    for job in jobs:
        await queue.enqueue(job, EVALUATIONS)
    await queue.release(given_back, None)
    taken = await queue.take(MODEL, "other", 8, 0)
    expected = [given_back.job.id, jobs[2].id, jobs[3].id, jobs[0].id]
    assert [lease.job.id for lease in taken] == expected


async def test_batch_first_swaps_the_classes(queue: JobQueue) -> None:
    interactive, batch = make_job(), make_job(Priority.BATCH)
    for job in (interactive, batch):
        await queue.enqueue(job, EVALUATIONS)
    taken = [await queue.take(MODEL, "worker", 2, 0, batch_first=first) for first in (True, False)]
    assert [leases[0].job.id for leases in taken] == [batch.id, interactive.id]


async def test_take_keeps_to_its_limit_and_shares_with_other_workers(redis_url: str) -> None:
    async with opened(redis_url) as one, opened(redis_url) as two:
        for _ in range(6):
            await one.enqueue(make_job(), EVALUATIONS)
        batches = await asyncio.gather(*(queue.take(MODEL, f"w{id(queue)}", 4, 0) for queue in (one, two, one)))
        assert [len(leases) for leases in batches] == [2, 2, 2]
        assert len({lease.job.id for leases in batches for lease in leases}) == 6
        assert await one.take(MODEL, "w", 0, 1000) == []


async def test_a_waiting_take_returns_as_soon_as_a_job_comes(queue: JobQueue) -> None:
    await start(queue)
    waiting = asyncio.create_task(queue.take(MODEL, "idle", 2, 10_000))

    async def blocked() -> bool:
        return "xread" in [client["cmd"] for client in await queue.redis.client_list()]

    await eventually(blocked)
    job = make_job(Priority.BATCH)
    started_s = time.monotonic()
    await queue.enqueue(job, EVALUATIONS)
    [lease] = await waiting
    assert lease.job.id == job.id
    assert time.monotonic() - started_s < 1


async def test_an_empty_take_waits_its_time_and_no_longer_without_spinning(queue: JobQueue) -> None:
    await start(queue)  # an entry that another worker holds is nothing to wake up for
    await queue.redis.config_resetstat()
    started_s = time.monotonic()
    assert await queue.take(MODEL, "idle", 2, 300) == []
    assert 0.29 < time.monotonic() - started_s < 1.3
    stats = await queue.redis.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] <= 2 * len(keys.LANES)


async def test_a_take_may_wait_longer_than_the_socket_timeout(redis_url: str) -> None:
    async with opened(redis_url, redis_timeout_s=0.2) as queue:
        assert await queue.take(MODEL, "worker", 2, 700) == []


async def test_a_take_cancelled_while_it_waits_loses_nothing(queue: JobQueue) -> None:
    waiting = asyncio.create_task(queue.take(MODEL, "worker", 2, 10_000))

    async def blocked() -> bool:
        return "xread" in [client["cmd"] for client in await queue.redis.client_list()]

    await eventually(blocked)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await start(queue)


async def test_renew_and_progress_reset_the_idle_time_but_not_the_delivery_count(queue: JobQueue) -> None:
    lease = await start(queue)

    async def aged() -> bool:
        return await idle_ms(queue, lease.stream, lease.entry_id) > 150

    await eventually(aged)
    assert await queue.renew(lease)
    assert await idle_ms(queue, lease.stream, lease.entry_id) < 150
    await eventually(aged)
    assert await queue.progress(lease, progress_event(1), None)
    assert await idle_ms(queue, lease.stream, lease.entry_id) < 150
    [pending] = await queue.redis.xpending_range(lease.stream, keys.GROUP, "-", "+", 10)
    assert (pending["times_delivered"], pending["consumer"]) == (1, b"worker")


async def test_progress_is_seen_and_repeats_are_not(queue: JobQueue) -> None:
    lease = await start(queue)
    for evaluation in (2, 3, 3, 1, 2, 4):
        assert await queue.progress(lease, progress_event(evaluation), None)
    assert [event.evaluation for _, event in await queue.events(lease.job.id)] == [2, 3, 4]
    view = await queue.view(lease.job.id)
    assert (view.evaluation, view.committed) == (4, 0.4)


async def test_a_cancelled_running_job_tells_its_worker_at_the_next_call(queue: JobQueue) -> None:
    lease = await start(queue)
    assert await queue.renew(lease)
    assert await queue.cancel(lease.job.id) is Status.RUNNING
    assert not await queue.renew(lease)
    assert not await queue.progress(lease, progress_event(1), checkpoint_at(1))
    await queue.cancelled(lease)
    assert (await queue.view(lease.job.id)).status is Status.CANCELLED
    assert [event.status for _, event in await queue.events(lease.job.id)] == [Status.RUNNING, Status.CANCELLED]
    assert await queue.redis.xlen(lease.stream) == 0


async def test_reports_sent_together_stand_each_for_itself(queue: JobQueue) -> None:
    going, to_cancel, taken = [await start(queue) for _ in range(3)]
    await queue.cancel(to_cancel.job.id)
    await queue.release(taken, None)
    [other] = await queue.take(MODEL, "other", 2, 0)
    reports = [(lease, progress_event(2), checkpoint_at(2)) for lease in (taken, to_cancel, going)]
    stale, cancelled, go_on = await queue.progress_all(reports)
    assert isinstance(stale, StaleEpoch)
    assert taken.job.id in str(stale)
    assert (cancelled, go_on) == (False, True)
    assert [(await queue.view(lease.job.id)).evaluation for lease in (other, to_cancel, going)] == [0, 2, 2]


async def test_a_failed_job_names_its_reason(queue: JobQueue) -> None:
    lease = await start(queue)
    await queue.progress(lease, progress_event(3), None)
    await queue.fail(lease, failing("token 9 is out of range"))
    view = await queue.view(lease.job.id)
    assert (view.status, str(view.failure), view.evaluation) == (Status.FAILED, "token 9 is out of range", 3)
    event_id, event = (await queue.events(lease.job.id))[-1]
    assert (event_id, event.detail) == ("3-1", "token 9 is out of range")
    assert 0 < await queue.redis.ttl(keys.job(lease.job.id)) <= queue.settings.result_ttl_s


async def test_a_released_job_goes_on_elsewhere_at_once_and_the_attempt_does_not_count(queue: JobQueue) -> None:
    lease = await start(queue)
    for round_number in range(1, 6):
        await queue.progress(lease, progress_event(round_number), None)
        await queue.release(lease, checkpoint_at(round_number))
        view = await queue.view(lease.job.id)
        assert (view.status, await queue.depths(MODEL)) == (Status.QUEUED, {"interactive": 1, "batch": 0})
        [lease] = await queue.take(MODEL, f"worker-{round_number}", 2, 0)
        assert (lease.epoch, lease.attempts) == (1 + round_number, 1)
        assert (lease.checkpoint, lease.evaluation) == (checkpoint_at(round_number), round_number)
    await queue.complete(lease, make_result(), [])
    lengths = [await queue.redis.xlen(keys.stream(MODEL, lane)) for lane in keys.LANES]
    assert lengths == [0, 0, 0]


async def test_release_without_a_checkpoint_keeps_the_one_there_is(queue: JobQueue) -> None:
    lease = await start(queue)
    await queue.progress(lease, progress_event(2), checkpoint_at(2))
    await queue.release(lease, None)
    [again] = await queue.take(MODEL, "other", 2, 0)
    assert again.checkpoint == checkpoint_at(2)


async def test_releasing_a_cancelled_job_ends_it(queue: JobQueue) -> None:
    lease = await start(queue)
    await queue.cancel(lease.job.id)
    await queue.release(lease, None)
    assert (await queue.view(lease.job.id)).status is Status.CANCELLED
    assert await queue.take(MODEL, "other", 2, 0) == []


async def test_a_released_job_can_be_cancelled_while_it_waits(queue: JobQueue) -> None:
    lease = await start(queue)
    await queue.release(lease, checkpoint_at(1))
    assert await queue.cancel(lease.job.id) is Status.CANCELLED
    assert await queue.take(MODEL, "other", 2, 0) == []
    assert await queue.redis.xlen(keys.stream(MODEL, keys.HANDOVER)) == 0


async def wait_past(queue: JobQueue, at_ms: int) -> None:
    async def passed() -> bool:
        seconds, microseconds = await queue.redis.time()
        return seconds * 1000 + microseconds // 1000 > at_ms

    await eventually(passed)


async def test_a_job_past_its_deadline_fails_instead_of_starting(queue: JobQueue) -> None:
    late, fine = make_job(deadline_ms=50), make_job(deadline_ms=60_000)
    for job in (late, fine):
        await queue.enqueue(job, EVALUATIONS)
    await wait_past(queue, (await queue.view(late.id)).job.created_ms + 60)
    assert [lease.job.id for lease in await queue.take(MODEL, "worker", 4, 0)] == [fine.id]
    view = await queue.view(late.id)
    assert (view.status, view.started_ms) == (Status.FAILED, None)
    assert "deadline" in str(view.failure)


async def test_a_running_job_past_its_deadline_fails_at_the_next_report(queue: JobQueue) -> None:
    job = make_job(deadline_ms=300)
    await queue.enqueue(job, EVALUATIONS)
    [lease] = await queue.take(MODEL, "worker", 2, 0)
    assert await queue.renew(lease)
    await wait_past(queue, lease.job.created_ms + 310)
    with pytest.raises(DeadlinePassed):
        await queue.renew(lease)
    assert (await queue.view(job.id)).status is Status.FAILED
    assert await queue.redis.xlen(lease.stream) == 0
    assert await queue.fenced_writes() == 0


async def test_every_end_is_counted_once(queue: JobQueue) -> None:
    done, cancelled_while_queued = await start(queue), make_job()
    for _ in range(2):  # the second time its reply might have been lost
        await queue.complete(done, make_result(), [b"first", b"second"])
    await queue.fail(await start(queue), failing("reason"))
    await queue.enqueue(cancelled_while_queued, EVALUATIONS)
    await queue.cancel(cancelled_while_queued.id)
    assert await queue.ended() == {"succeeded": 1, "failed": 1, "cancelled": 1}


async def test_the_memory_of_redis_can_be_watched(queue: JobQueue) -> None:
    await queue.redis.config_set("maxmemory", "2gb")
    try:
        used, most = await queue.memory()
    finally:
        await queue.redis.config_set("maxmemory", "0")
    assert 0 < used < most == 2 * 2**30


async def test_the_events_of_one_job_are_capped(queue: JobQueue) -> None:
    lease = await start(queue)
    for evaluation in range(1, 1101):
        await queue.progress(lease, progress_event(evaluation).model_copy(update={"evaluations": 1100}), None)
    events = await queue.events(lease.job.id)
    assert (len(events), events[-1][0]) == (1024, "1100-0")


async def test_consumers_long_gone_are_forgotten_but_not_those_with_entries(queue: JobQueue) -> None:
    lease = await start(queue)
    await queue.redis.xgroup_createconsumer(lease.stream, keys.GROUP, "long gone")
    await queue.store.run(PREPARE, PREPARE.call({"stream": lease.stream}, {"group": keys.GROUP, "idle_ms": -1}))
    assert [row["name"] for row in await queue.redis.xinfo_consumers(lease.stream, keys.GROUP)] == [b"worker"]


def with_more(record: str | bytes) -> str:
    """The JSON as a next version might write it: one field more in each of its objects that has any."""
    return json.dumps(json.loads(record, object_hook=lambda members: members and {**members, "of_the_next_version": 1}))


async def test_a_job_of_a_newer_gateway_fails_alone_and_is_not_misread(queue: JobQueue) -> None:
    newer, known = make_job(), make_job()
    for job in (newer, known):
        await queue.enqueue(job, EVALUATIONS)
    await queue.redis.hset(keys.job(newer.id), "job", with_more(newer.model_dump_json()))
    [lease] = await queue.take(MODEL, "worker", 4, 0)
    assert lease.job.id == known.id
    view = await queue.view(newer.id)
    assert view.status is Status.FAILED
    assert "another version" in str(view.failure)
    assert "parameters.of_the_next_version" in str(view.failure)
    assert newer.prompt not in str(view.failure)
    assert await queue.redis.xlen(lease.stream) == 1


async def test_an_older_reader_skips_what_newer_workers_add(queue: JobQueue) -> None:
    worker = worker_info("new")
    await queue.register(worker, ttl_ms=10_000)
    await queue.redis.hset(keys.WORKERS, "new", with_more(worker.model_dump_json()))
    assert await queue.workers() == [worker]

    lease = await start(queue)
    await queue.release(lease, checkpoint_at(3))
    await queue.redis.hset(keys.job(lease.job.id), "checkpoint", with_more(checkpoint_at(3).model_dump_json()))
    [again] = await queue.take(MODEL, "older", 2, 0)
    assert again.checkpoint == checkpoint_at(3)
