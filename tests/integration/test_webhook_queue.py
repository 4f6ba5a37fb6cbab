"""What Redis knows of webhooks that are to be delivered: who gets one, for how long, and what stays of it."""

from collections.abc import AsyncIterator, Sequence

import pytest
from both_sides import JobQueue
from queue_support import EVALUATIONS, MODEL, eventually, make_job, make_result, opened

from service.errors import NotDurable, QueueFull
from service.messages import Status
from service.queue import keys
from service.queue.account import Account
from service.queue.webhooks import Deliveries, Delivery

pytestmark = pytest.mark.anyio

URL = "https://hooks.example.com/marked-zq9w"
WEEK_S = 7 * 86400
LEASE_MS = 60_000


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[JobQueue]:
    async with opened(redis_url) as queue:
        yield queue


@pytest.fixture
def deliveries(queue: JobQueue) -> Deliveries:
    return Deliveries(queue.store)


async def accepted(queue: JobQueue, url: str = URL, owner: str = "", deadline_ms: int | None = None) -> str:
    job = make_job(deadline_ms=deadline_ms).model_copy(update={"webhook_url": url})
    await queue.enqueue(job, EVALUATIONS, account=Account(owner=owner))
    return job.id


async def ended(queue: JobQueue, url: str = URL, owner: str = "") -> str:
    """A job that has ended, in the simplest way."""
    job_id = await accepted(queue, url, owner)
    assert await queue.cancel(job_id) is Status.CANCELLED
    return job_id


async def claimed(deliveries: Deliveries, lease_ms: int = LEASE_MS, busy: Sequence[str] = ()) -> Delivery:
    delivery, _ = await deliveries.claim(lease_ms, busy)
    assert delivery
    return delivery


async def test_each_is_given_to_one_the_longest_due_first(queue: JobQueue, deliveries: Deliveries) -> None:
    first, second = await ended(queue), await ended(queue)
    await queue.redis.zadd(keys.WEBHOOKS, {first: 1, second: 2})
    assert [(await claimed(deliveries)).job_id for _ in range(2)] == [first, second]
    nothing, due_s = await deliveries.claim(LEASE_MS)
    assert nothing is None
    assert LEASE_MS / 1000 - 30 < due_s <= LEASE_MS / 1000


async def test_what_nobody_has_said_anything_of_is_given_again(queue: JobQueue, deliveries: Deliveries) -> None:
    """Whoever took it is gone."""
    job_id = await ended(queue)
    await claimed(deliveries, lease_ms=1)
    again = await eventually(lambda: given(deliveries))
    assert (again.job_id, again.attempt, again.url) == (job_id, 2, URL)
    assert again.view.status is Status.CANCELLED


async def given(deliveries: Deliveries) -> Delivery | None:
    return (await deliveries.claim(LEASE_MS))[0]


async def test_an_attempt_that_was_taken_over_decides_nothing(queue: JobQueue, deliveries: Deliveries) -> None:
    job_id = await ended(queue)
    late = await claimed(deliveries, lease_ms=1)
    present = await eventually(lambda: given(deliveries))
    assert not await deliveries.settle(late, None)
    assert not await deliveries.settle(late, 0.0)
    assert await queue.redis.exists(keys.webhook(job_id))
    assert await given(deliveries) is None, "the lease of the present one holds"
    assert await deliveries.settle(present, None)


async def test_nothing_stays_of_one_that_is_over(queue: JobQueue, deliveries: Deliveries) -> None:
    await ended(queue, owner="k1")
    assert await deliveries.settle(await claimed(deliveries), None)
    assert await kept_of_webhooks(queue) == []


async def kept_of_webhooks(queue: JobQueue) -> list[bytes]:
    return [key for key in await queue.redis.keys() if b"webhook" in key]


@pytest.mark.parametrize("state", ["waits", "runs", "has ended", "is being posted"])
async def test_of_a_job_that_its_client_does_not_know_no_end_is_told(
    queue: JobQueue, deliveries: Deliveries, state: str
) -> None:
    """The client was told that it was not accepted, and asks again: it would get two."""
    job_id = await accepted(queue, owner="k1")
    leases = [] if state == "waits" else await queue.take(MODEL, "worker", 2, 0)
    if state in ("has ended", "is being posted"):
        await queue.complete(leases[0], make_result(), [])
    attempt = await claimed(deliveries) if state == "is being posted" else None
    await queue.cancel(job_id, unknown=True)
    if state == "runs":
        await queue.cancelled(leases[0])
    if attempt:
        assert not await deliveries.settle(attempt, 1.0)
    assert (await queue.view(job_id)).status is (Status.CANCELLED if state in ("waits", "runs") else Status.SUCCEEDED)
    assert await deliveries.claim(LEASE_MS) == (None, float("inf"))
    assert await kept_of_webhooks(queue) == []


async def test_in_durable_mode_no_end_is_told_while_its_client_may_be_told_of_none(redis_url: str) -> None:
    """Quick jobs end before the replicas have been waited for."""
    async with opened(redis_url, durable_replicas=1, durable_timeout_s=0.1) as queue:
        with pytest.raises(NotDurable):
            await accepted(queue)
        [lease] = await queue.take(MODEL, "worker", 2, 0)
        await queue.complete(lease, make_result(), [])
        due_ms = await queue.redis.zscore(keys.WEBHOOKS, lease.job.id)
        assert due_ms is not None
        assert due_ms >= lease.job.created_ms + 600


async def test_a_job_that_waits_beyond_its_deadline_is_ended_by_who_posts_it(
    queue: JobQueue, deliveries: Deliveries
) -> None:
    """Who waits for a webhook need not ask for the job, and there may be no worker."""
    job_id = await accepted(queue, deadline_ms=1)
    late = await eventually(lambda: given(deliveries))
    assert (late.job_id, late.view.status) == (job_id, Status.FAILED)
    assert late.view.failure
    assert late.view.failure.kind == "deadline-passed"


async def test_one_that_runs_beyond_it_is_left_to_its_worker_for_a_while(
    queue: JobQueue, deliveries: Deliveries
) -> None:
    job_id = await accepted(queue, deadline_ms=60_000)
    await queue.take(MODEL, "worker", 2, 0)
    await queue.redis.hset(keys.job(job_id), "deadline_at_ms", (await queue.redis.time())[0] * 1000 - 1)
    await queue.redis.zadd(keys.WEBHOOKS, {job_id: 1})
    assert await deliveries.claim(LEASE_MS) == (None, 0.0)
    nothing, due_s = await deliveries.claim(LEASE_MS)
    assert nothing is None
    assert 0 < due_s <= 1
    await queue.redis.hset(keys.job(job_id), "deadline_at_ms", 1)
    await queue.redis.zadd(keys.WEBHOOKS, {job_id: 1})
    late = await eventually(lambda: given(deliveries))
    assert late.view.status is Status.FAILED, "its worker was silent for a lease"


async def test_one_that_failed_comes_back_when_it_is_time(queue: JobQueue, deliveries: Deliveries) -> None:
    await ended(queue)
    assert await deliveries.settle(await claimed(deliveries), 30.0)
    nothing, due_s = await deliveries.claim(LEASE_MS)
    assert nothing is None
    assert 0 < due_s <= 30


async def test_of_a_busy_receiver_or_owner_none_is_given(queue: JobQueue, deliveries: Deliveries) -> None:
    slow, other = "https://Slow.example.com:8443/a", "http://other.example.com"
    places = [(slow, "k1"), (slow, "k2"), (other, "k1"), ("https://slow.example.com/?b", "k3"), (other, "k2")]
    jobs = [await ended(queue, url, owner) for url, owner in places]
    await queue.redis.zadd(keys.WEBHOOKS, {job: place for place, job in enumerate(jobs)})
    found = await claimed(deliveries, busy=["owner:k1", "receiver:slow.example.com"])
    assert (found.job_id, found.names) == (jobs[4], ("receiver:other.example.com", "owner:k2"))
    assert (await deliveries.claim(LEASE_MS, ["owner:k1", "receiver:slow.example.com"]))[0] is None
    assert (await claimed(deliveries, busy=["owner:k1"])).job_id == jobs[1]
    assert (await claimed(deliveries, busy=["owner:k", "receiver:low.example.com"])).job_id == jobs[0]


async def test_those_who_need_no_key_are_no_owner_that_is_busy(queue: JobQueue, deliveries: Deliveries) -> None:
    await ended(queue)
    assert (await claimed(deliveries, busy=["receiver:other"])).names == ("receiver:hooks.example.com",)


@pytest.mark.parametrize("url", ["no url", "https://", "https:///x", ""])
async def test_a_url_that_is_none_stops_nothing(queue: JobQueue, deliveries: Deliveries, url: str) -> None:
    """Whatever another version let in."""
    job_id = await ended(queue)
    await queue.redis.hset(keys.webhook(job_id), "webhook", url)
    assert (await claimed(deliveries)).receiver == ""


async def test_what_is_never_answered_is_forgotten_after_a_week(queue: JobQueue, deliveries: Deliveries) -> None:
    job_id = await ended(queue, owner="k1")
    for key in (keys.webhook(job_id), keys.owner_webhooks("k1")):
        assert WEEK_S - 60 < await queue.redis.ttl(key) <= WEEK_S, key
    await queue.redis.delete(keys.webhook(job_id), keys.job(job_id))
    await queue.redis.zadd(keys.WEBHOOKS, {job_id: 1})
    assert await deliveries.claim(LEASE_MS) == (None, float("inf"))
    assert not await queue.redis.exists(keys.WEBHOOKS)


async def test_the_end_that_a_worker_of_before_wrote_is_kept_for_a_week_too(
    queue: JobQueue, deliveries: Deliveries
) -> None:
    job_id = await ended(queue)
    await queue.redis.delete(keys.webhook(job_id))
    await queue.redis.zadd(keys.WEBHOOKS, {job_id: 1})
    assert (await claimed(deliveries)).job_id == job_id
    assert WEEK_S - 60 < await queue.redis.ttl(keys.webhook(job_id)) <= WEEK_S


async def test_an_accepted_job_is_looked_at_every_minute(queue: JobQueue, deliveries: Deliveries) -> None:
    """In case that a worker of the version before ends it, which says nothing of webhooks."""
    job_id = await accepted(queue)
    nothing, due_s = await deliveries.claim(LEASE_MS)
    assert nothing is None
    assert 50 < due_s <= 60
    await queue.redis.zadd(keys.WEBHOOKS, {job_id: 1})
    assert 50 < (await deliveries.claim(LEASE_MS))[1] <= 60


async def test_it_is_looked_at_when_its_deadline_has_passed(queue: JobQueue, deliveries: Deliveries) -> None:
    job_id = await accepted(queue, deadline_ms=40_000)
    assert 30 < (await deliveries.claim(LEASE_MS))[1] <= 40
    await queue.redis.zadd(keys.WEBHOOKS, {job_id: 1})
    assert 30 < (await deliveries.claim(LEASE_MS))[1] <= 40.1


async def test_the_places_of_one_owner_and_of_all_are_bounded(queue: JobQueue) -> None:
    now_ms = (await queue.redis.time())[0] * 1000
    await queue.redis.zadd(keys.owner_webhooks("k1"), {f"job-of-k1-{number}": now_ms for number in range(999)})
    await accepted(queue, owner="k1")
    with pytest.raises(QueueFull, match="too many webhooks"):
        await accepted(queue, owner="k1")
    await queue.redis.zadd(keys.WEBHOOKS, {f"other-{number}": now_ms + 10**6 for number in range(9998)})
    await accepted(queue, owner="k2")
    with pytest.raises(QueueFull, match="too many webhooks"):
        await accepted(queue, owner="k3")
    await queue.enqueue(make_job(), EVALUATIONS, account=Account(owner="k3"))


async def test_what_was_forgotten_takes_no_place(queue: JobQueue) -> None:
    week_ago_ms = ((await queue.redis.time())[0] - WEEK_S - 1) * 1000
    await queue.redis.zadd(keys.owner_webhooks("k1"), {f"old-{number}": week_ago_ms for number in range(1000)})
    await accepted(queue, owner="k1")


async def test_operators_see_how_many_wait_and_for_how_long(queue: JobQueue, deliveries: Deliveries) -> None:
    assert await queue.webhooks() == (0, 0.0)
    await accepted(queue)
    assert await queue.webhooks() == (1, 0.0)
    late = await ended(queue)
    await queue.redis.zincrby(keys.WEBHOOKS, -90_000, late)
    count, overdue_s = await queue.webhooks()
    assert count == 2
    assert 89 < overdue_s < 120
    await claimed(deliveries)
    assert await queue.webhooks() == (2, 0.0)


async def test_a_long_line_of_those_that_are_busy_is_looked_at_in_pieces(
    queue: JobQueue, deliveries: Deliveries
) -> None:
    """One call of a script keeps everybody from Redis."""
    slow, good = await ended(queue, "https://slow.example.com"), await ended(queue, owner="k2")
    line = [f"copy-{number}" for number in range(1000)]
    async with queue.redis.pipeline() as pipe:
        for name in line:
            pipe.copy(keys.webhook(slow), keys.webhook(name))
        pipe.zadd(keys.WEBHOOKS, {name: place for place, name in enumerate(line)})
        await pipe.execute()
    await queue.redis.config_resetstat()
    assert (await claimed(deliveries, busy=["receiver:slow.example.com"])).job_id == good
    stats = await queue.redis.info("commandstats")
    scripts = sum(told["calls"] for name, told in stats.items() if name in ("cmdstat_evalsha", "cmdstat_eval"))
    looked = stats["cmdstat_hmget"]["calls"]
    assert scripts >= 5
    assert 1000 < looked < 1100, "each once"
    assert (await claimed(deliveries)).job_id == "copy-0"
    nothing, due_s = await deliveries.claim(LEASE_MS, ["receiver:slow.example.com"])
    assert nothing is None
    assert 50 < due_s <= 60, "when the first of these leases has run out"
