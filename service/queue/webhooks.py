"""Webhooks that are to be delivered: in Redis from the moment at which their job ends, until they are answered."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from service.errors import NotFound
from service.messages import JobView
from service.queue import keys
from service.queue.scripts import CLAIM_WEBHOOK, SETTLE_WEBHOOK, Argument
from service.queue.store import Store
from service.queue.submissions import Submissions
from service.queue.views import VIEW_FIELDS, read_view


@dataclass(frozen=True)
class Delivery:
    """One attempt, which is ours until its lease runs out. ``view``: the job as it ended."""

    job_id: str
    attempt: int
    age_s: float
    """Since the job ended."""
    owner: str
    receiver: str
    """Its host."""
    url: str = field(repr=False)
    view: JobView = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Whose delivery it is; those who need no key are nobody."""
        return (f"receiver:{self.receiver}", *((f"owner:{self.owner}",) if self.owner else ()))


class Deliveries:
    """Every method raises RedisUnavailable."""

    def __init__(self, store: Store) -> None:
        self.store, self.submissions = store, Submissions(store)

    async def claim(self, lease_ms: int, busy: Iterable[str] = ()) -> tuple[Delivery | None, float]:
        """One that is due, which nobody else gets for ``lease_ms``; else in how many seconds there is one.

        ``busy``: whose deliveries are not to be taken, as ``Delivery.names`` has them.

        Raises OtherVersion.
        """
        touched = {"due": keys.WEBHOOKS, "prefix": keys.webhook(""), "jobs": keys.job("")}
        told: dict[str, Argument] = {"lease_ms": lease_ms, "busy": f" {' '.join(busy)} "}
        passed, wait_ms, found = 0, 0, []
        while passed >= 0:  # a long line of those that are busy is looked at in pieces, others' work between them
            call = CLAIM_WEBHOOK.call(touched, told | {"passed": passed}, rest=[*VIEW_FIELDS, "webhook"])
            passed, wait_ms, *found = await self.store.run(CLAIM_WEBHOOK, call)
            if passed >= 0 and found:  # late: whoever looks at it ends it, unless a worker does
                with suppress(NotFound):
                    await self.submissions.view(found[0].decode())
                return None, 0.0
        if not found:
            return None, (wait_ms / 1000 if wait_ms >= 0 else float("inf"))
        job_id, attempt, now_ms, receiver = found[0].decode(), found[1], int(found[2]), found[3].decode()
        row: dict[str, Any] = dict(zip([*VIEW_FIELDS, "webhook"], found[4], strict=True))
        row = {name: value for name, value in row.items() if value is not None}
        with self.store.records.reading("job", job_id):
            view = read_view(row)
            age_s = (now_ms - (view.finished_ms or 0)) / 1000
            delivery = Delivery(job_id, attempt, age_s, view.owner, receiver, row["webhook"].decode(), view)
        return delivery, 0.0

    async def settle(self, delivery: Delivery, again_s: float | None) -> bool:
        """It is over, or to be tried again after so many seconds → False if it is another's by now."""
        touched = {"due": keys.WEBHOOKS, "record": keys.webhook(delivery.job_id)}
        touched["own"] = keys.owner_webhooks(delivery.owner)
        again_ms: Argument = "" if again_s is None else round(again_s * 1000)
        told: dict[str, Argument] = {"id": delivery.job_id, "attempt": delivery.attempt, "again_ms": again_ms}
        return bool(await self.store.run(SETTLE_WEBHOOK, SETTLE_WEBHOOK.call(touched, told)))
