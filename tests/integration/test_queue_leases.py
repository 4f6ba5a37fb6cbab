"""Lost workers: leases end, jobs resume elsewhere, and whoever comes back too late is refused. On a real Redis."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

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
)

from service.errors import StaleEpoch
from service.messages import Status
from service.queue import keys
from service.queue.leases import Lease
from service.queue.scripts import PREPARE, READ

pytestmark = pytest.mark.anyio

LEASE_MS = 300


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[JobQueue]:
    """The process whose worker is lost."""
    async with opened(redis_url, lease_ms=LEASE_MS) as queue:
        yield queue


@pytest.fixture
async def rescuer(redis_url: str) -> AsyncIterator[JobQueue]:
    async with opened(redis_url, lease_ms=LEASE_MS) as queue:
        yield queue


async def start(queue: JobQueue, worker_id: str = "worker") -> Lease:
    job = make_job()
    await queue.enqueue(job, EVALUATIONS)
    [lease] = await queue.take(MODEL, worker_id, 2, 0)
    return lease


async def rescue(rescuer: JobQueue, worker_id: str = "rescuer") -> Lease:
    async def found() -> list[Lease]:
        return await rescuer.recover(MODEL, worker_id, 2)

    [lease] = await eventually(found)
    return lease


async def test_a_live_lease_is_not_recovered(queue: JobQueue, rescuer: JobQueue) -> None:
    lease = await start(queue)
    assert await rescuer.recover(MODEL, "rescuer", 10) == []
    assert await queue.renew(lease)


async def test_a_silent_worker_s_job_resumes_from_its_last_checkpoint(queue: JobQueue, rescuer: JobQueue) -> None:
    lease = await start(queue)
    await queue.progress(lease, progress_event(2), checkpoint_at(2))
    await queue.progress(lease, progress_event(4), checkpoint_at(4))
    await queue.progress(lease, progress_event(5), None)
    rescued = await rescue(rescuer)
    assert rescued.job == lease.job
    assert (rescued.epoch, rescued.attempts, rescued.evaluation) == (2, 2, 5)
    assert rescued.checkpoint == checkpoint_at(4)
    for evaluation in range(5, EVALUATIONS + 1):
        await rescuer.progress(rescued, progress_event(evaluation), None)
    await rescuer.complete(rescued, make_result(), [])
    announced = [event.evaluation for _, event in await queue.events(lease.job.id)]
    assert announced == [2, 4, 5, 6, 7, 8, 9, 10, 10]


async def test_a_job_of_ten_leases_stays_with_its_worker_beside_an_idle_one(queue: JobQueue, rescuer: JobQueue) -> None:
    lease = await start(queue)
    busy_until = asyncio.get_running_loop().time() + 10 * LEASE_MS / 1000
    while asyncio.get_running_loop().time() < busy_until:
        assert await queue.renew(lease)
        assert await rescuer.recover(MODEL, "idle", 10) == []
        assert await rescuer.take(MODEL, "idle", 10, LEASE_MS // 4) == []
    [pending] = await queue.redis.xpending_range(lease.stream, keys.GROUP, "-", "+", 10)
    assert (pending["times_delivered"], pending["consumer"]) == (1, b"worker")
    assert (await queue.view(lease.job.id)).attempts == 1


LATE_WRITES: dict[str, Callable[[JobQueue, Lease], Awaitable[object]]] = {
    "renew": lambda queue, lease: queue.renew(lease),
    "progress": lambda queue, lease: queue.progress(lease, progress_event(9), checkpoint_at(9)),
    "complete": lambda queue, lease: queue.complete(lease, make_result(), [b"zombie", b"zombie"]),
    "fail": lambda queue, lease: queue.fail(lease, failing("zombie")),
    "cancelled": lambda queue, lease: queue.cancelled(lease),
    "release": lambda queue, lease: queue.release(lease, checkpoint_at(9)),
}


async def everything(queue: JobQueue, lease: Lease) -> object:
    """All that a stale write could have changed, but for the counter and the idle time."""
    pending = await queue.redis.xpending_range(lease.stream, keys.GROUP, "-", "+", 10)
    return (
        await queue.redis.hgetall(keys.job(lease.job.id)),
        await queue.redis.xrange(keys.events(lease.job.id)),
        await queue.redis.hgetall(keys.images(lease.job.id)),
        [(row["message_id"], row["consumer"], row["times_delivered"]) for row in pending],
        [await queue.redis.xrange(keys.stream(MODEL, lane)) for lane in keys.LANES],
        await queue.depths(MODEL),
    )


@pytest.mark.parametrize("write", LATE_WRITES)
@pytest.mark.parametrize("state", ["running", "released", "succeeded", "failed"])
async def test_a_zombie_cannot_write(queue: JobQueue, rescuer: JobQueue, write: str, state: str) -> None:
    stale = await start(queue)
    fresh = await rescue(rescuer)
    if state == "released":
        await rescuer.release(fresh, checkpoint_at(1))
    elif state == "succeeded":
        await rescuer.complete(fresh, make_result(), [b"first", b"second"])
    elif state == "failed":
        await rescuer.fail(fresh, failing("reason"))
    before = await everything(queue, stale)
    with pytest.raises(StaleEpoch):
        await LATE_WRITES[write](queue, stale)
    assert await everything(queue, stale) == before
    assert await queue.fenced_writes() == 1


@pytest.mark.parametrize("end", ["complete", "fail", "cancelled", "release"])
async def test_an_end_may_be_repeated_but_not_changed(queue: JobQueue, end: str) -> None:
    lease = await start(queue)
    await LATE_WRITES[end](queue, lease)
    before = await everything(queue, lease)
    await LATE_WRITES[end](queue, lease)
    # A release ends a job that was to be cancelled, so "cancelled" may be what a repeated release finds.
    others = LATE_WRITES.keys() - {end} - ({"release"} if end == "cancelled" else set())
    for other in others:
        with pytest.raises(StaleEpoch):
            await LATE_WRITES[other](queue, lease)
    assert await everything(queue, lease) == before
    assert await queue.fenced_writes() == len(others)


async def test_a_poison_job_is_given_up_with_its_reason_and_others_go_on(redis_url: str) -> None:
    async with opened(redis_url, lease_ms=LEASE_MS, max_attempts=2) as first:
        poison = await start(first, "victim-0")
        assert not poison.suspect
        async with opened(redis_url, lease_ms=LEASE_MS, max_attempts=2) as second:
            for attempts in (2, 3):
                again = await rescue(second, f"victim-{attempts - 1}")
                assert (again.job.id, again.attempts, again.suspect) == (poison.job.id, attempts, True)
                await second.begin_trial(again)
                second.forget(again)
        other = make_job()
        await first.enqueue(other, EVALUATIONS)
        async with opened(redis_url, lease_ms=LEASE_MS, max_attempts=2) as third:

            async def given_up() -> bool:
                assert await third.recover(MODEL, "survivor", 2) == []
                return (await third.view(poison.job.id)).status is Status.FAILED

            await eventually(given_up)
            [lease] = await third.take(MODEL, "survivor", 10, 0)
            assert lease.job.id == other.id
            view = await third.view(poison.job.id)
            assert "2 attempts" in str(view.failure)
            assert (await third.events(poison.job.id))[-1][1].detail == str(view.failure)
            [(_, letter)] = await third.redis.xrange(keys.dead(MODEL))
            assert (letter[b"job"], letter[b"worker"]) == (poison.job.id.encode(), b"victim-2")
            assert letter[b"reason"].decode() == str(view.failure)
            assert await third.dead_lettered() == 1
            assert await third.redis.xlen(poison.stream) == 1
            with pytest.raises(StaleEpoch):
                await third.fail(again, failing("zombie"))


async def test_a_death_counts_only_when_nothing_else_ran(queue: JobQueue, rescuer: JobQueue) -> None:
    """It may wait beside a job that kills its workers, and die with each of them: it is never given up for that."""
    lease = await start(queue)
    for _ in range(2 * queue.settings.max_attempts):
        lease = await rescue(rescuer)
        assert lease.suspect
        rescuer.forget(lease)
    assert await rescuer.dead_lettered() == 0


async def test_a_job_that_moves_forward_is_trusted_again(queue: JobQueue, rescuer: JobQueue) -> None:
    await start(queue)
    for evaluation in range(1, 2 * queue.settings.max_attempts):
        lease = await rescue(rescuer)
        assert lease.suspect is (evaluation == 1), "it had not moved before the first death alone"
        await rescuer.begin_trial(lease)
        await rescuer.progress(lease, progress_event(evaluation), None)
        rescuer.forget(lease)
    assert await rescuer.dead_lettered() == 0


async def test_who_is_blamed_for_triton_is_a_suspect_and_who_only_waited_is_not(queue: JobQueue) -> None:
    for blame in (True, False):
        lease = await start(queue)
        await queue.release(lease, None, blame=blame)
        [again] = await queue.take(MODEL, "other", 2, 0)
        assert (again.suspect, again.attempts) == (blame, 1 + blame)
        await queue.cancelled(again)


async def test_recovery_takes_no_more_than_asked_and_finds_all_in_the_end(queue: JobQueue, rescuer: JobQueue) -> None:
    lost = [await start(queue) for _ in range(25)]
    for lease in lost[:5]:
        await queue.release(lease, None)
    lost[:5] = await queue.take(MODEL, "worker", 10, 0)  # these lie in the hand-over stream now
    assert {lease.stream for lease in lost} == {keys.stream(MODEL, "interactive"), keys.stream(MODEL, keys.HANDOVER)}

    async def all_idle() -> bool:
        return min([await idle_ms(queue, lease.stream, lease.entry_id) for lease in lost]) > LEASE_MS

    await eventually(all_idle)
    found = await rescuer.recover(MODEL, "rescuer", 8)
    assert len(found) == 4
    assert await rescuer.recover(MODEL, "rescuer", 0) == []
    found += await rescuer.recover(MODEL, "rescuer", 200)
    assert sorted(lease.job.id for lease in found) == sorted(lease.job.id for lease in lost)
    assert {lease.attempts for lease in found} == {2}


async def test_recovery_looks_behind_many_live_leases(redis_url: str) -> None:
    async with opened(redis_url, lease_ms=1000) as queue, opened(redis_url, lease_ms=1000) as rescuer:
        *live, lost = [await start(queue) for _ in range(25)]  # one XAUTOCLAIM for one entry looks at ten

        async def silent() -> bool:
            assert all([await queue.renew(lease) for lease in live])
            return await idle_ms(queue, lost.stream, lost.entry_id) > 1000

        await eventually(silent)
        assert [lease.job.id for lease in await rescuer.recover(MODEL, "rescuer", 2)] == [lost.job.id]


async def test_an_entry_that_no_longer_stands_for_its_job_gives_no_second_lease(
    queue: JobQueue, rescuer: JobQueue
) -> None:
    lease = await start(queue)
    await queue.release(lease, None)
    # As if another worker had auto-claimed the old entry just before the release.
    await queue.redis.xadd(lease.stream, {"job": lease.job.id, "priority": "interactive"})
    [again] = await rescuer.take(MODEL, "rescuer", 10, 0)
    assert again.stream == keys.stream(MODEL, keys.HANDOVER)
    assert await rescuer.renew(again)
    assert await queue.redis.xlen(lease.stream) == 0


async def test_a_job_cancelled_while_its_worker_was_lost_ends_instead_of_running_again(
    queue: JobQueue, rescuer: JobQueue
) -> None:
    lease = await start(queue)
    await queue.cancel(lease.job.id)

    async def ended() -> bool:
        assert await rescuer.recover(MODEL, "rescuer", 2) == []
        return (await queue.view(lease.job.id)).status is Status.CANCELLED

    await eventually(ended)
    with pytest.raises(StaleEpoch):
        await queue.complete(lease, make_result(), [])


async def test_a_process_does_not_take_its_own_job_from_itself(queue: JobQueue) -> None:
    lease = await start(queue)

    async def silent() -> bool:
        return await idle_ms(queue, lease.stream, lease.entry_id) > LEASE_MS

    await eventually(silent)
    assert await queue.recover(MODEL, "worker", 10) == []
    assert await queue.renew(lease)


async def test_a_forgotten_lease_can_be_recovered_by_the_same_process(queue: JobQueue) -> None:
    lease = await start(queue)
    queue.forget(lease)
    assert (await rescue(queue, "worker")).attempts == 2


async def test_a_worker_started_again_under_its_name_finds_its_jobs_and_the_loss_counts(
    queue: JobQueue, rescuer: JobQueue
) -> None:
    lost = [await start(queue) for _ in range(3)]
    waiting = make_job()
    await queue.enqueue(waiting, EVALUATIONS)

    async def aged() -> bool:
        return await idle_ms(queue, lost[2].stream, lost[2].entry_id) > 2 * LEASE_MS

    await eventually(aged)
    found = await rescuer.take(MODEL, "worker", 4, 0) + await rescuer.take(MODEL, "worker", 10, 0)
    assert [lease.job.id for lease in found] == [*(lease.job.id for lease in lost), waiting.id]
    assert [lease.attempts for lease in found] == [2, 2, 2, 1]
    assert max([await idle_ms(queue, lease.stream, lease.entry_id) for lease in found]) < 2 * LEASE_MS
    assert await rescuer.take(MODEL, "worker", 10, 0) == []
    for lease in lost:
        with pytest.raises(StaleEpoch):
            await queue.renew(lease)


async def test_an_entry_delivered_but_never_claimed_is_recovered_as_a_first_attempt(
    queue: JobQueue, rescuer: JobQueue
) -> None:
    job = make_job()
    await queue.enqueue(job, EVALUATIONS)
    lane = [key(MODEL, "interactive") for key in (keys.stream, keys.order, keys.turns)]
    await queue.store.run(PREPARE, PREPARE.call({"stream": lane[0]}, {"group": keys.GROUP, "idle_ms": 1000}))
    told = {"group": keys.GROUP, "worker": "died here", "room": 2, "reserve": 0, "held": 0}
    await queue.store.run(READ, READ.call({"patient": "", "bell": keys.bell(MODEL)}, told, rest_keys=lane))
    lease = await rescue(rescuer)
    assert (lease.job.id, lease.attempts, lease.epoch) == (job.id, 1, 1)
