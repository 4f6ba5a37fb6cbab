"""Delivers what is due, whichever gateway accepted the job: each takes what nobody else is about to deliver."""

import asyncio
import contextlib
import logging
import random
import traceback
from collections import Counter

from service.errors import OtherVersion, RedisUnavailable
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
    def __init__(self, deliveries: Deliveries, post: Post, metrics: GatewayMetrics, settings: Settings) -> None:
        self.deliveries, self.post, self.metrics, self.settings = deliveries, post, metrics, settings
        self.room, self.freed = asyncio.Semaphore(AT_ONCE), asyncio.Event()
        self.under_way: Counter[str] = Counter()
        # A gateway that dies leaves its attempts to others after this.
        self.lease_ms = round(1000 * (2 * settings.webhook_timeout_s + 1))

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as attempts:
                while True:
                    await self.room.acquire()
                    self.freed.clear()
                    delivery, pause_s = await self.next()
                    if delivery:
                        self.under_way.update(delivery.names)
                        attempts.create_task(self.attempt(delivery), name="webhook")
                    else:
                        self.room.release()
                        await self.pause(pause_s)
        finally:
            await self.post.close()

    async def pause(self, longest_s: float) -> None:
        """Or until an attempt is over: there may be others of whoever it was for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                await self.freed.wait()

    def busy(self) -> list[str]:
        return [name for name, count in self.under_way.items() if count >= MOST[name.partition(":")[0]]]

    async def next(self) -> tuple[Delivery | None, float]:
        """The next that is due, or for how long to pause."""
        try:
            delivery, due_s = await self.deliveries.claim(self.lease_ms, self.busy())
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
        finally:
            self.under_way.subtract(delivery.names)
            self.under_way = +self.under_way
            self.freed.set()
            self.room.release()

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
