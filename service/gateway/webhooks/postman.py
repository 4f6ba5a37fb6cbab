"""Delivers what is due, whichever gateway accepted the job: each takes what nobody else is about to deliver."""

import asyncio
import logging
import random
import traceback
from collections import Counter
from collections.abc import Container

from service.errors import OtherVersion, RedisUnavailable
from service.gateway.tasks import cancel_tasks, race
from service.gateway.webhooks.post import Outcome, Post
from service.queue.webhooks import Deliveries, Delivery
from service.settings import Settings
from service.telemetry.logs import ids
from service.telemetry.metrics import GatewayMetrics

log = logging.getLogger(__name__)

AT_ONCE = 64
MOST = {"receiver": 4, "owner": 8}
"""Of these, so many to one host and of one API key: a receiver that never answers holds up its own only."""
LOOK_S = 1.0
"""Longest pause between two looks at what is due."""
GROWTH, LONGEST_S = 3, 4 * 3600
"""Each pause between two attempts is so many times the last one, up to this."""


class Postman:
    """``stopping``: nothing more is taken; what is under way has ``stop_s`` to end, and is else given back.

    ``unknown``: jobs whose clients were told that they were not accepted. Nobody gets word of them.
    """

    def __init__(
        self,
        deliveries: Deliveries,
        post: Post,
        metrics: GatewayMetrics,
        settings: Settings,
        stopping: asyncio.Event,
        stop_s: float,
        unknown: Container[str] = (),
    ) -> None:
        self.deliveries, self.post, self.metrics, self.settings = deliveries, post, metrics, settings
        self.stopping, self.stop_s, self.unknown = stopping, stop_s, unknown
        self.attempts, self.freed = set[asyncio.Task[None]](), asyncio.Event()
        self.under_way: Counter[str] = Counter()
        # A gateway that dies leaves its attempts to others after this.
        self.lease_ms = round(1000 * (2 * settings.webhook_timeout_s + 1))

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as attempts:
                while not self.stopping.is_set():
                    self.freed.clear()
                    full = len(self.attempts) >= AT_ONCE
                    delivery, pause_s = (None, LOOK_S) if full else await self.next()
                    if delivery:
                        self.under_way.update(delivery.names)
                        self.attempts.add(task := attempts.create_task(self.attempt(delivery), name="webhook"))
                        task.add_done_callback(self.over)
                    else:
                        await race(self.freed.wait(), self.stopping.wait(), asyncio.sleep(pause_s))
                await self.end_attempts()
        finally:
            await self.post.close()

    def over(self, task: asyncio.Task[None]) -> None:
        self.attempts.discard(task)
        self.freed.set()  # there may be others of whoever it was for

    async def end_attempts(self) -> None:
        if self.attempts:
            _, late = await asyncio.wait(self.attempts, timeout=self.stop_s)
            await cancel_tasks(*late)

    def busy(self) -> list[str]:
        return [name for name, count in self.under_way.items() if count >= MOST[name.partition(":")[0]]]

    async def next(self) -> tuple[Delivery | None, float]:
        """The next that is due, or for how long to pause."""
        try:
            delivery, due_s = await self.deliveries.claim(self.lease_ms, self.busy())
            if delivery and delivery.job_id in self.unknown:
                await self.deliveries.settle(delivery, None)
                return None, 0.0
        except OtherVersion:  # which a gateway of that version delivers
            return None, 0.0
        except RedisUnavailable as error:
            self.metrics.redis_errors.inc()
            log.warning("no webhooks are delivered for now: %s", error)
            return None, LOOK_S
        return delivery, min(due_s, LOOK_S)

    async def attempt(self, delivery: Delivery) -> None:
        try:
            with ids(job_id=delivery.job_id):
                await self.settle(delivery, *await self.outcome(delivery))
        except RedisUnavailable as error:  # it is delivered once more when the lease has run out
            self.metrics.redis_errors.inc()
            log.warning("nobody knows that a webhook was sent: %s", error)
        except asyncio.CancelledError:
            await self.give_back(delivery)
            raise
        finally:
            self.under_way.subtract(delivery.names)
            self.under_way = +self.under_way

    async def give_back(self, delivery: Delivery) -> None:
        """So that another gateway sends it now, and not when the lease has run out."""
        try:
            await self.deliveries.settle(delivery, 0.0)
        except RedisUnavailable as error:
            log.warning("a webhook waits until its lease has run out: %s", error)

    async def outcome(self, delivery: Delivery) -> tuple[Outcome, str]:
        try:
            return await self.post.deliver(delivery)
        except Exception as error:  # one message must not end this gateway, and then each that takes it next
            name, place = type(error).__name__, traceback.format_tb(error.__traceback__)[-1]
            facts = {"at": place}  # not the error's words: they may have the URL
            log.error("a webhook could not be sent: %s", name, extra={"fields": facts})
            return Outcome.FAILED, name

    async def settle(self, delivery: Delivery, outcome: Outcome, why: str) -> None:
        again_s = pause_s(self.settings.webhook_retry_s, delivery.attempt)
        late = delivery.age_s + again_s > self.settings.webhook_give_up_s
        again = outcome is Outcome.FAILED and not late
        counted = "retried" if again else "dead" if outcome is Outcome.FAILED else outcome.value
        facts = {"attempt": delivery.attempt, "answer": why}
        severity = logging.INFO if again or outcome is Outcome.DELIVERED else logging.WARNING
        log.log(severity, "webhook %s", counted, extra={"fields": facts})
        self.metrics.webhooks.labels(counted).inc()
        await self.deliveries.settle(delivery, again_s if again else None)


def pause_s(first_s: float, attempt: int) -> float:
    """After so many attempts; spread, so that what failed together does not come back together."""
    usual: float = min(LONGEST_S, first_s * GROWTH ** min(attempt - 1, 16))
    return usual * random.uniform(0.8, 1.2)
