"""What the gateway does with the queue: accept, look, cancel."""

import re
from dataclasses import dataclass
from typing import Any

from service.errors import InvalidRequest, NotFound, QueueFull
from service.messages import Event, Failure, Job, JobView, Priority, Result, Status
from service.queue import keys
from service.queue.scripts import CANCEL, ENQUEUE, Argument, ScriptCall
from service.queue.store import Store, job_keys

RETRY_AFTER_S = 5
"""A full queue: long enough for some job to finish, short enough to be worth waiting for."""

VIEW_FIELDS = (
    *("job", "status", "epoch", "attempts", "evaluation", "evaluations", "committed"),
    *("created_ms", "started_ms", "finished_ms", "failure", "result"),
)


@dataclass(frozen=True)
class Idempotency:
    """``key`` is already scoped to the caller."""

    key: str
    payload_sha256: str


class Submissions:
    """The gateway's side of the queue. Every method raises RedisUnavailable."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def enqueue(self, job: Job, evaluations: int, idempotency: Idempotency | None = None) -> tuple[str, bool]:
        """Accept ``job``, whole or not at all → its id and whether it is new; an idempotency key gives the first one's.

        ``created_ms`` is set here, by Redis's clock. An idempotency key outlives the result, so the id may be of a
        job whose view is NotFound by now. Raises QueueFull, and InvalidRequest for a key used with another payload.
        """
        settings = self.store.settings
        outcome, job_id = await self.store.run(ENQUEUE, self._enqueue_call(job, evaluations, idempotency))
        if outcome == b"full":
            raise QueueFull(f"{settings.queue_capacity} jobs of {job.model} wait or run already", RETRY_AFTER_S)
        if outcome == b"no memory":
            raise QueueFull("Redis is nearly full; results are kept for a while and then make room", RETRY_AFTER_S)
        if outcome == b"other payload":
            raise InvalidRequest("Idempotency-Key", "was used with another request; use a new key for a new request")
        return job_id.decode(), outcome == b"created"

    def _enqueue_call(self, job: Job, evaluations: int, idempotency: Idempotency | None) -> ScriptCall:
        model, settings = job.model, self.store.settings
        stream = keys.stream(model, job.priority.value)
        [other_active] = [keys.active(model, other) for other in Priority if other is not job.priority]
        other, third = [key for lane in keys.LANES if (key := keys.stream(model, lane)) != stream]
        touched = job_keys(job.id, model, job.priority, stream)
        touched |= {"other_active": other_active, "other_stream": other, "third_stream": third}
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
        }
        return ENQUEUE.call(touched, self.store.job_arguments(job.id) | arguments)

    async def view(self, job_id: str) -> JobView:
        """The job as it is now. Raises NotFound."""
        async with self.store.answer():
            values: list[Any] = await self.store.redis.hmget(keys.job(job_id), list(VIEW_FIELDS))
        row: dict[str, Any] = {name: value.decode() for name, value in zip(VIEW_FIELDS, values, strict=True) if value}
        if "job" not in row:
            raise NotFound(f"no job {job_id}")
        job = Job.model_validate_json(row.pop("job")).model_copy(update={"created_ms": int(row.pop("created_ms"))})
        result = Result.model_validate_json(row.pop("result")) if "result" in row else None
        failure = Failure.model_validate_json(row.pop("failure")) if "failure" in row else None
        missing: dict[str, Any] = {"started_ms": None, "finished_ms": None}
        return JobView.model_validate({**missing, **row, "job": job, "failure": failure, "result": result})

    async def image(self, job_id: str, index: int) -> bytes:
        """The encoded image. Raises NotFound."""
        async with self.store.answer():
            data: Any = await self.store.redis.hget(keys.images(job_id), str(index))
        if not isinstance(data, bytes):
            raise NotFound(f"no image {index} of job {job_id}")
        return data

    async def events(self, job_id: str, after: str = "") -> list[tuple[str, Event]]:
        """(id, event) in order, those after the event with id ``after``; the end of the job is always the last.

        Raises NotFound, and InvalidRequest when ``after`` is no event id.
        """
        if after and not re.fullmatch(r"\d{1,15}-\d{1,15}", after, re.ASCII):
            raise InvalidRequest("Last-Event-ID", "must be the id of an event of this job, such as 12-0")
        async with self.store.answer(), self.store.redis.pipeline(transaction=True) as pipe:
            pipe.exists(keys.job(job_id))
            pipe.xrange(keys.events(job_id), f"({after}" if after else "-")
            known, entries = await pipe.execute()
        if not known:
            raise NotFound(f"no job {job_id}")
        rows = [(entry, {name.decode(): value.decode() for name, value in row.items()}) for entry, row in entries]
        return [(entry.decode(), Event.model_validate(row)) for entry, row in rows]

    async def cancel(self, job_id: str) -> Status:
        """Cancel → the status after it: cancelled if it was queued, running until its worker hears of it, or the end
        that it has already. Raises NotFound."""
        job = (await self.view(job_id)).job
        about = job_keys(job_id, job.model, job.priority, keys.stream(job.model, job.priority.value))
        status = await self.store.run(CANCEL, CANCEL.call(about, self.store.job_arguments(job_id)))
        if status is None:
            raise NotFound(f"no job {job_id}")
        return Status(status.decode())
