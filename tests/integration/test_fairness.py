"""Promise 15, one key cannot starve another: the order in which jobs of several owners are taken, on a real Redis."""

import itertools
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from both_sides import JobQueue
from queue_support import MODEL, make_job, make_result, opened

from service.messages import Job, Priority
from service.queue import keys
from service.queue.account import Account

pytestmark = pytest.mark.anyio

COST = 10


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[JobQueue]:
    async with opened(redis_url) as queue:
        yield queue


async def send(
    queue: JobQueue, owner: str, cost: int = COST, weight: float = 1, priority: Priority = Priority.INTERACTIVE
) -> Job:
    job = make_job(priority)
    await queue.enqueue(job, 1, account=Account(owner, weight), passes=cost)
    return job


async def next_owner(queue: JobQueue) -> str:
    """Take one job and finish it → whose it was."""
    [lease] = await queue.take(MODEL, "worker", 2, 0)
    owner = (await queue.view(lease.job.id)).owner
    await queue.complete(lease, make_result(), [])
    return owner


async def next_owners(queue: JobQueue, count: int) -> Counter[str]:
    return Counter([await next_owner(queue) for _ in range(count)])


async def test_15_a_single_job_waits_for_no_backlog_of_another_key(queue: JobQueue) -> None:
    for _ in range(30):
        await send(queue, "flood")
    await next_owner(queue)
    for _ in range(3):  # also for one that comes again and again
        await send(queue, "polite")
        assert await next_owner(queue) == "polite"
        assert await next_owner(queue) == "flood"


async def test_two_that_flood_share_alike_whoever_came_first_and_whatever_a_job_costs(queue: JobQueue) -> None:
    for _ in range(30):
        await send(queue, "first", cost=4 * COST)
    for _ in range(30):
        await send(queue, "second")
    taken = await next_owners(queue, 25)
    assert taken["first"] == pytest.approx(5, abs=1)


async def test_a_weight_is_a_share(queue: JobQueue) -> None:
    for _ in range(30):
        await send(queue, "heavy", weight=3)
        await send(queue, "light")
    taken = await next_owners(queue, 24)
    assert taken["heavy"] == pytest.approx(18, abs=1)


async def test_new_owners_without_end_do_not_keep_out_who_has_had_a_turn(queue: JobQueue) -> None:
    for _ in range(2):
        await send(queue, "patient")
    newcomers = itertools.count()
    taken: list[str] = []
    while taken.count("patient") < 2:
        await send(queue, f"new-{next(newcomers)}")
        taken.append(await next_owner(queue))
        assert len(taken) < 10, taken


async def test_who_cancels_gets_the_turns_back(queue: JobQueue) -> None:
    for _ in range(30):
        await queue.cancel((await send(queue, "fickle")).id)
    for _ in range(5):
        await send(queue, "flood")
    await next_owner(queue)
    await send(queue, "fickle")
    assert await next_owner(queue) == "fickle"


async def test_jobs_of_one_owner_go_in_the_order_in_which_they_came(queue: JobQueue) -> None:
    for owner in ("one", ""):
        sent = [(await send(queue, owner)).id for _ in range(5)]
        assert [lease.job.id for lease in await queue.take(MODEL, "worker", 10, 0)] == sent


async def test_turns_are_taken_within_a_class_and_handed_over_jobs_go_first(queue: JobQueue) -> None:
    waiting = [await send(queue, "flood", priority=Priority.BATCH) for _ in range(2)]
    [lease] = await queue.take(MODEL, "worker", 2, 0)
    await queue.release(lease, None)
    await send(queue, "polite", priority=Priority.BATCH)
    await send(queue, "flood")
    taken = [lease.job.id for lease in await queue.take(MODEL, "worker", 4, 0)]
    assert taken[0] == waiting[0].id, "handed over"
    assert (await queue.view(taken[1])).job.priority is Priority.INTERACTIVE
    assert await next_owner(queue) == "polite"
    assert await next_owner(queue) == "flood"


async def test_a_waiting_job_knows_its_place_and_what_is_before_it(queue: JobQueue) -> None:
    mine = [await send(queue, "") for _ in range(4)]
    assert [await queue.place(job) for job in mine] == [(0, 0), (1, COST), (2, 2 * COST), (3, 3 * COST)]
    await next_owner(queue)
    assert [await queue.place(job) for job in mine] == [None, (0, 0), (1, COST), (2, 2 * COST)]
    await send(queue, "other")
    ahead, passes = await queue.place(mine[3]) or (0, 0)
    assert ahead == 3
    assert passes == pytest.approx(3 * COST, rel=0.7), "an estimate, where there are several owners"
    await queue.cancel(mine[1].id)
    assert await queue.place(mine[1]) is None


async def test_all_that_is_more_urgent_goes_before_a_batch_job(queue: JobQueue) -> None:
    batch = [await send(queue, "", priority=Priority.BATCH) for _ in range(2)]
    assert [await queue.place(job) for job in batch] == [(0, 0), (1, COST)]
    urgent = [await send(queue, "") for _ in range(3)]
    assert [await queue.place(job) for job in batch] == [(0, 3 * COST), (1, 4 * COST)]
    assert await queue.place(urgent[2]) == (2, 2 * COST)
    await queue.cancel(urgent[2].id)
    assert await queue.place(batch[0]) == (0, 2 * COST)


async def test_until_a_turn_each_owner_has_as_much_work(queue: JobQueue) -> None:
    jobs = [await send(queue, owner) for owner in ("a", "b", "a", "b")]

    async def before_the_last() -> int | None:
        place = await queue.place(jobs[-1])
        return place and place.passes

    assert await before_the_last() == 2 * COST
    await next_owner(queue)
    assert await before_the_last() == 2 * COST, "the mark of the last turn is no owner"


async def test_nothing_of_an_owner_is_left_in_the_order(queue: JobQueue) -> None:
    for number in range(20):
        await send(queue, f"key-{number}")
    await next_owners(queue, 20)
    for _ in range(3):
        await send(queue, "last")
        await next_owner(queue)
    left = {name.decode() for name in await queue.redis.zrange(keys.turns(MODEL, "interactive"), 0, -1)}
    assert left == {"@now", "last"}
    assert await queue.depths(MODEL) == {"interactive": 0, "batch": 0}
    assert not await queue.redis.exists(keys.order(MODEL, "interactive"))


async def commands_sent(queue: JobQueue) -> int:
    stats = await queue.redis.info("commandstats")
    return sum(row["calls"] for name, row in stats.items() if name not in {"cmdstat_info", "cmdstat_ping"})


async def cost_of_a_job(queue: JobQueue, number: int) -> int:
    before = await commands_sent(queue)
    await send(queue, f"active-{number % 10}")
    await next_owner(queue)
    return await commands_sent(queue) - before


async def test_a_job_costs_redis_the_same_beside_any_number_of_idle_keys(redis_url: str) -> None:
    async with opened(redis_url, scan_ms=600_000) as queue:  # a look for lost jobs costs commands, too
        alone = [await cost_of_a_job(queue, number) for number in range(20)]
        async with queue.redis.pipeline(transaction=False) as pipe:
            for number in range(100_000):
                pipe.hset(keys.owner_used(f"idle-{number}"), "bytes", 1)
            await pipe.execute()
        beside = [await cost_of_a_job(queue, number) for number in range(20)]
    assert beside[10:] == alone[10:]
