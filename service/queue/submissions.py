"""What the gateway does with the queue: accept, look, cancel."""

import contextlib
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from service.errors import InvalidRequest, NotFound, OtherVersion, QueueFull
from service.messages import Event, Job, JobView, Priority, Status
from service.queue import keys
from service.queue.account import ANYBODY, Account, Allowance, OverQuota
from service.queue.files import Files
from service.queue.listing import Listing
from service.queue.pixels import NO_PIXELS, Pixels
from service.queue.previews import Preview, PreviewsFor, Shown
from service.queue.scripts import CANCEL, ENQUEUE, LATE, PREVIEW, Argument, ScriptCall
from service.queue.store import Store, job_keys
from service.queue.views import VIEW_FIELDS
from service.storage import Bucket

RETRY_AFTER_S = 5
"""A full queue: long enough for some job to finish, short enough to be worth waiting for."""

WITHDRAWAL_S = 0.5
"""In durable mode: how long it may take to withdraw a job that came too late to the replicas."""

REFUSALS = {
    b"full": "{capacity} jobs of {model} wait or run already",
    b"shed": "batch jobs are refused while four fifths of the queue's {capacity} places are taken",
    b"webhooks wait": "too many webhooks wait for an answer of their receivers",
    b"no memory": "Redis is nearly full; results are kept for a while and then make room",
}
"""What enqueue.lua says when we cannot take a job, and what it means."""
LIMITS = {
    b"too many jobs": ("jobs", "this key may have {jobs} jobs waiting or running at once"),
    b"crowd": ("crowd", "this key's jobs fill the queue, and the places left are for others"),
    b"too costly": ("cost_per_minute", "this key may spend {cost_per_minute} passes of the network a minute"),
    b"too many bytes": ("result_bytes", "this key's pictures take {result_bytes} bytes, which is all they may"),
}
"""What it says when the job's owner may not have it."""


@dataclass(frozen=True)
class Idempotency:
    """``key`` is already scoped to the caller."""

    key: str
    payload_sha256: str


class Accepted(NamedTuple):
    """``created``: the job is new, and not the first one of an idempotency key."""

    job_id: str
    created: bool
    allowance: Allowance


@dataclass(frozen=True)
class News:
    """What happened to a job. ``waits``: no worker has it; ``bounded``: it has a deadline."""

    events: list[tuple[str, Event]]
    ended: bool
    waits: bool
    bounded: bool


class Submissions(Listing):
    """The gateway's side of the queue. Every method raises RedisUnavailable."""

    def __init__(self, store: Store, bucket: Bucket | None = None) -> None:
        super().__init__(store)
        self.files = Files(store, bucket)

    async def enqueue(
        self,
        job: Job,
        evaluations: int,
        idempotency: Idempotency | None = None,
        account: Account = ANYBODY,
        passes: int = 0,
        pixels: Pixels = NO_PIXELS,
        *,
        previews: PreviewsFor | None = None,
    ) -> Accepted:
        """Accept ``job`` with its ``pixels``, whole or not at all; an idempotency key gives the first one's.
        ``previews``: as ``ask_previews`` has it, if it is a new job.

        ``passes`` through the network are what it costs; as many as evaluations where nobody says, and one at least.
        ``created_ms`` is set here, by Redis's clock. An idempotency key outlives the result, so the id may be of a job
        whose view is NotFound by now. Raises QueueFull, OverQuota, NotDurable (the job may be there all the same), and
        InvalidRequest for a key that was used with another payload.
        """
        cost = max(1, passes or evaluations)
        call = self._enqueue_call(job, evaluations, idempotency, account, cost, pixels, previews)
        outcome, job_id, debt_ms, wait_ms = await self.store.run_durably(ENQUEUE, call)
        allowance = Allowance.of(account, debt_ms)
        if outcome in REFUSALS:
            facts = {"capacity": self.store.settings.queue_capacity, "model": job.model}
            raise QueueFull(REFUSALS[outcome].format(**facts), RETRY_AFTER_S)
        if outcome in LIMITS:
            limit, words = LIMITS[outcome]
            seconds = math.ceil(wait_ms / 1000) or RETRY_AFTER_S
            raise OverQuota(words.format(**asdict(account)), seconds, limit, account, allowance)
        if outcome == b"other payload":
            raise InvalidRequest("Idempotency-Key", "was used with another request; use a new key for a new request")
        return Accepted(job_id.decode(), outcome == b"created", allowance)

    def _enqueue_call(
        self,
        job: Job,
        evaluations: int,
        idempotency: Idempotency | None,
        account: Account,
        cost: int,
        pixels: Pixels,
        previews: PreviewsFor | None,
    ) -> ScriptCall:
        model, settings = job.model, self.store.settings
        [other_active] = [keys.active(model, other) for other in Priority if other is not job.priority]
        touched = job_keys(job.id, model, job.priority, keys.stream(model, job.priority.value))
        touched |= {"other_active": other_active, "bell": keys.bell(model)}
        if idempotency:
            touched["idempotency"] = keys.idempotency(idempotency.key)
        arguments: dict[str, Argument] = {
            "record": job.model_dump_json(),
            "evaluations": evaluations,
            "priority": job.priority.value,
            "rows": job.parameters.n,
            "deadline_ms": "" if job.deadline_ms is None else job.deadline_ms,
            "capacity": settings.queue_capacity,
            "payload": idempotency.payload_sha256 if idempotency else "",
            "idempotency_ttl_s": settings.idempotency_ttl_s,
            "owner": account.owner,
            "weight": account.weight,
            "cost": cost,
            "cost_per_minute": account.cost_per_minute,
            "most_jobs": account.jobs,
            "most_bytes": account.result_bytes,
            "webhook": job.webhook_url,
            "unsure_ms": round(1000 * (settings.durable_timeout_s + WITHDRAWAL_S)) if settings.durable_replicas else 0,
            "preview": previews or "",
        }
        if pixels.image:
            arguments |= {"image": pixels.image, "mask": pixels.mask}
        return ENQUEUE.call(touched, self.store.job_arguments(job.id) | arguments)

    async def view(self, job_id: str) -> JobView:
        """The job as it is now; one that waits beyond its deadline, or whose worker is silent beyond it, ends here.

        Raises NotFound, OtherVersion.
        """
        view = await self._view(job_id)
        if not view.status.terminal and await self.time_left_s(view.job) == 0:
            return await self._view(job_id)
        return view

    async def time_left_s(self, job: Job) -> float:
        """Seconds until the job's deadline, 0 when it has passed: then a job that nobody works on ends."""
        if job.deadline_ms is None:
            return math.inf
        about = job_keys(job.id, job.model, job.priority, keys.stream(job.model, job.priority.value))
        told = self.store.job_arguments(job.id) | {"lease_ms": self.store.settings.lease_ms}
        left_ms = await self.store.run(LATE, LATE.call(about, told))
        return math.inf if left_ms is None else left_ms / 1000

    async def _view(self, job_id: str) -> JobView:
        async with self.store.answer():
            values: Sequence[Any] = await self.store.redis.hmget(keys.job(job_id), VIEW_FIELDS)
        return self.read(job_id, values)

    async def owner(self, job_id: str) -> str:
        """Whose the job is; empty when there is none, or nobody was asked for a key."""
        async with self.store.answer():
            owner: Any = await self.store.redis.hget(keys.job(job_id), "owner")
        return owner.decode() if isinstance(owner, bytes) else ""

    async def image(self, job_id: str, index: int) -> bytes:
        """The encoded image, from where it is kept. Raises NotFound, OtherVersion, StorageUnavailable."""
        [data] = await self.files.read(job_id, [index])
        return data

    async def images(self, view: JobView) -> list[bytes]:
        """All of a finished job, in one trip; raises as ``image``."""
        return await self.files.read(view.job.id, [info.index for info in view.result.images] if view.result else [])

    async def events(self, job_id: str, after: str = "") -> list[tuple[str, Event]]:
        """(id, event) in order, those after the event with id ``after``; the end of the job is always the last.

        Those that this version cannot read are left out. Raises NotFound, and InvalidRequest when ``after`` is no
        event id.
        """
        return (await self._news(job_id, after)).events

    async def news(self, job_id: str, after: str = "") -> News:
        """``events`` with what else a listener must know, in one trip; a job that is late ends here, as in ``view``."""
        news = await self._news(job_id, after)
        if news.bounded and not news.ended and (await self.view(job_id)).status.terminal:
            return await self._news(job_id, after)
        return news

    async def _news(self, job_id: str, after: str) -> News:
        if after and not re.fullmatch(r"\d{1,15}-\d{1,15}", after, re.ASCII):
            raise InvalidRequest("Last-Event-ID", "must be the id of an event of this job, such as 12-0")
        # At once, so that a job that has ended comes with its last event.
        async with self.store.answer(), self.store.redis.pipeline(transaction=True) as pipe:
            pipe.hmget(keys.job(job_id), ["status", "finished_ms", "deadline_at_ms"])
            pipe.xrange(keys.events(job_id), f"({after}" if after else "-")
            [status, finished, deadline], entries = await pipe.execute()
        if not status:
            raise NotFound(f"no job {job_id}")
        found = []
        for entry_id, row in entries:
            with contextlib.suppress(OtherVersion), self.store.records.reading("event", f"of job {job_id}"):
                event = Event.model_validate({name.decode(): value.decode() for name, value in row.items()})
                found.append((entry_id.decode(), event))
        return News(found, ended=bool(finished), waits=status == b"queued", bounded=bool(deadline))

    async def ask_previews(self, job_id: str, whose: PreviewsFor) -> None:
        """From now on, and until it ends, its worker makes previews of a job; of one that has ended nothing comes."""
        await self.store.run(PREVIEW, PREVIEW.call({"job": keys.job(job_id)}, {"whose": whose.value}))

    async def previews(self, job_id: str) -> tuple[Preview, ...]:
        """The newest of a job in progress; none of another version that this one cannot read."""
        async with self.store.answer():
            record: Any = await self.store.redis.hget(keys.job(job_id), "previews")
        with contextlib.suppress(OtherVersion), self.store.records.reading("preview", f"of job {job_id}"):
            return Shown.model_validate_json(record).pictures if record else ()
        return ()

    async def cancel(self, job_id: str, *, unknown: bool = False) -> Status:
        """Cancel → the status after it: cancelled if it was queued, running until its worker hears of it, or the end
        that it has already. ``unknown``: its client does not know that it was accepted, gets no webhook of it and pays
        nothing for it. Raises NotFound, OtherVersion."""
        job = (await self.view(job_id)).job
        about = job_keys(job_id, job.model, job.priority, keys.stream(job.model, job.priority.value))
        told = self.store.job_arguments(job_id) | ({"unknown": 1} if unknown else {})
        status = await self.store.run(CANCEL, CANCEL.call(about, told))
        if status is None:
            raise NotFound(f"no job {job_id}")
        with self.store.records.reading("job", job_id):
            return Status(status.decode())
