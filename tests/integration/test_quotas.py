"""What an account may use, as the script that accepts jobs keeps it, on a real Redis."""

from collections.abc import AsyncIterator

import pytest
from both_sides import JobQueue
from queue_support import MODEL, eventually, make_job, make_result, opened

from service.errors import NotFound, QueueFull
from service.messages import Job, Priority
from service.queue import keys
from service.queue.account import Account, OverQuota
from service.queue.submissions import Accepted, Idempotency

pytestmark = pytest.mark.anyio

RATED = Account("rated", cost_per_minute=600)
"""Ten passes a second."""


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[JobQueue]:
    async with opened(redis_url) as queue:
        yield queue


async def send(queue: JobQueue, account: Account, passes: int = 100, **named: str) -> Accepted:
    once = Idempotency(named["once"], "payload") if "once" in named else None
    return await queue.enqueue(make_job(), 10, once, account, passes)


async def refused(queue: JobQueue, account: Account, passes: int = 100, job: Job | None = None) -> OverQuota:
    before = await queue.depths(MODEL)
    with pytest.raises(OverQuota) as error:
        await queue.enqueue(job or make_job(), 10, None, account, passes)
    assert await queue.depths(MODEL) == before
    return error.value


async def run_next(queue: JobQueue, *images: bytes) -> None:
    [lease] = await queue.take(MODEL, "worker", 2, 0)
    await queue.complete(lease, make_result(), [*images])


async def test_a_minutes_worth_may_be_spent_at_once_and_then_it_comes_back_bit_by_bit(queue: JobQueue) -> None:
    left = [(await send(queue, RATED)).allowance.left for _ in range(6)]
    assert left == pytest.approx([500, 400, 300, 200, 100, 0], abs=20)
    error = await refused(queue, RATED)
    assert (error.limit, error.allowance.left) == ("cost_per_minute", pytest.approx(0, abs=20))
    assert "600 passes of the network a minute" in str(error)
    assert error.retry_after_s == pytest.approx(10, abs=2), "a hundred passes, at ten a second"
    assert error.allowance.whole_in_s == pytest.approx(60, abs=2)
    assert (await refused(queue, RATED, 10)).retry_after_s <= 2


async def test_what_was_spent_comes_back(queue: JobQueue) -> None:
    quick = Account("quick", cost_per_minute=60_000)
    await send(queue, quick, 60_000)
    assert (await refused(queue, quick, 300)).retry_after_s == 1

    async def accepted() -> bool:
        try:
            return (await send(queue, quick, 300)).created
        except OverQuota:
            return False

    await eventually(accepted)


async def test_a_job_that_costs_more_than_a_minute_runs_from_a_full_allowance(queue: JobQueue) -> None:
    assert (await send(queue, RATED, 1800)).allowance.left == 0
    assert (await refused(queue, RATED, 1)).retry_after_s == pytest.approx(120, abs=2)


async def test_one_key_s_limit_is_not_another_s(queue: JobQueue) -> None:
    await send(queue, RATED, 600)
    await refused(queue, RATED)
    for other in (Account("other", cost_per_minute=600), Account("free"), Account()):
        assert (await send(queue, other)).created


async def test_a_repeated_call_and_a_repeated_key_cost_nothing(queue: JobQueue) -> None:
    job = make_job()
    for _ in range(3):
        spent = await queue.enqueue(job, 10, Idempotency("key", "payload"), RATED, 300)
    assert spent.allowance.left == pytest.approx(300, abs=20)
    again = await send(queue, RATED, 300, once="key")
    assert (again.job_id, again.created) == (job.id, False)
    await send(queue, RATED, 300)
    assert not (await send(queue, RATED, 300, once="key")).created, "nor is it refused"


async def test_a_job_that_its_client_does_not_know_costs_nothing(queue: JobQueue) -> None:
    """The client was told that it was not accepted."""
    job_id = (await send(queue, RATED, 600)).job_id
    await refused(queue, RATED)
    for _ in range(2):  # the first reply may have been lost
        await queue.cancel(job_id, unknown=True)
    assert (await send(queue, RATED)).allowance.left == pytest.approx(500, abs=20)


async def test_jobs_at_once_are_counted_until_they_end(queue: JobQueue) -> None:
    two = Account("two", jobs=2)
    first = await send(queue, two)
    await send(queue, two)
    error = await refused(queue, two)
    assert (error.limit, error.retry_after_s) == ("jobs", 5)
    await run_next(queue)
    await send(queue, two)
    await refused(queue, two)
    await queue.cancel((await queue.view(first.job_id)).job.id)  # it has ended
    await refused(queue, two)
    [waiting, _] = await queue.redis.zrange(keys.owner_jobs("two"), 0, -1)
    await queue.cancel(waiting.decode())
    await send(queue, two)


async def test_a_job_that_a_worker_of_another_version_ended_is_not_counted_for_ever(queue: JobQueue) -> None:
    one = Account("one", jobs=1)
    ended = await send(queue, one)
    await run_next(queue)
    await queue.redis.zadd(keys.owner_jobs("one"), {ended.job_id: 1, "expired": 2})
    assert (await send(queue, one)).created


async def test_kept_pictures_are_counted_until_they_expire(redis_url: str) -> None:
    async with opened(redis_url, result_ttl_s=2) as queue:
        small = Account("small", result_bytes=100)
        await send(queue, small)
        await run_next(queue, bytes(60))
        await send(queue, small)
        await run_next(queue, bytes(30), bytes(10))
        error = await refused(queue, small)
        assert error.limit == "result_bytes"
        assert error.retry_after_s <= 2

        async def accepted() -> bool:
            try:
                return (await send(queue, small)).created
            except OverQuota:
                return False

        await eventually(accepted)
        await run_next(queue, bytes(1))
        assert int(await queue.redis.hget(keys.owner_used("small"), "bytes")) <= 41


async def test_an_owner_s_jobs_are_listed_page_by_page(queue: JobQueue) -> None:
    """Those that wait or run, newest first, then those that ended, last ended first; never another's."""
    jobs = [(await send(queue, Account("mine"))).job_id for _ in range(6)]
    other = (await send(queue, Account("other"))).job_id
    await run_next(queue, bytes(5))  # the first
    await run_next(queue)  # the other's, whose turn it is
    await queue.cancel(jobs[3])
    expected = [jobs[5], jobs[4], jobs[2], jobs[1], jobs[3], jobs[0]]
    assert [view.job.id for view in await queue.listed("mine", 10)] == expected
    for size in (1, 2, 4):
        found: list[str] = []
        while page := await queue.listed("mine", size, found[-1] if found else ""):
            assert len(page) <= size
            found += [view.job.id for view in page]
        assert found == expected
    assert [view.job.id for view in await queue.listed("other", 10)] == [other]
    assert await queue.listed("nobody", 10) == []
    for unknown in (other, "no-job"):
        with pytest.raises(NotFound):
            await queue.listed("mine", 10, after=unknown)


async def test_nothing_is_kept_of_an_owner_who_is_gone(redis_url: str) -> None:
    async with opened(redis_url, result_ttl_s=1) as queue:
        await send(queue, Account("gone", cost_per_minute=60_000, jobs=1, result_bytes=1))
        await run_next(queue, bytes(10))

        async def forgotten() -> bool:
            return not await queue.redis.keys("*owner*")

        await eventually(forgotten)


async def test_a_short_lived_result_does_not_make_a_debt_forgotten(redis_url: str) -> None:
    async with opened(redis_url, result_ttl_s=1) as queue:
        await send(queue, RATED, 600)
        await run_next(queue, bytes(10))
        assert await queue.redis.ttl(keys.owner_used("rated")) >= 50


async def test_one_key_cannot_fill_the_queue(redis_url: str) -> None:
    async with opened(redis_url, queue_capacity=18) as queue:
        flood = Account("flood")
        for _ in range(16):
            await send(queue, flood)
        assert (await refused(queue, flood)).limit == "crowd"
        for owner in ("polite", "second"):
            await send(queue, Account(owner))
        with pytest.raises(QueueFull):
            await send(queue, Account("third"))


async def test_whoever_need_not_say_who_they_are_may_fill_it(redis_url: str) -> None:
    async with opened(redis_url, queue_capacity=18) as queue:
        for _ in range(18):
            await send(queue, Account())
        with pytest.raises(QueueFull):
            await send(queue, Account())


async def test_batch_jobs_are_refused_before_the_queue_is_full(redis_url: str) -> None:
    async with opened(redis_url, queue_capacity=10) as queue:
        for _ in range(8):
            await queue.enqueue(make_job(Priority.BATCH), 10)
        with pytest.raises(QueueFull, match="batch jobs are refused") as shed:
            await queue.enqueue(make_job(Priority.BATCH), 10)
        assert shed.value.retry_after_s == 5
        for _ in range(2):
            await queue.enqueue(make_job(), 10)
        with pytest.raises(QueueFull, match="10 jobs of reference"):
            await queue.enqueue(make_job(), 10)
