"""What the gateway does with the queue: accept, look, cancel."""

import re
from dataclasses import dataclass
from typing import Any

from service.errors import InvalidRequest, NotFound, QueueFull
from service.messages import Event, Job, JobView, Priority, Result, Status, WorkerInfo
from service.queue import keys
from service.queue.connection import Connection

RETRY_AFTER_S = 5
"""A full queue: long enough for some job to finish, short enough to be worth waiting for."""

VIEW_FIELDS = (
    *("job", "status", "epoch", "attempts", "evaluation", "evaluations", "committed"),
    *("created_ms", "started_ms", "finished_ms", "error", "result"),
)


@dataclass(frozen=True)
class Idempotency:
    """``key`` is already scoped to the caller."""

    key: str
    payload_sha256: str


class GatewaySide(Connection):
    async def enqueue(self, job: Job, evaluations: int, idempotency: Idempotency | None = None) -> tuple[str, bool]:
        """Accept ``job``, whole or not at all → its id and whether it is new; an idempotency key gives the first one's.

        ``created_ms`` is set here, by Redis's clock. An idempotency key outlives the result, so the id may be of a
        job whose view is NotFound by now. Raises QueueFull, and InvalidRequest for a key used with another payload.
        """
        model, settings = job.model, self.settings
        stream = keys.stream(model, job.priority.value)
        more_keys = [keys.active(model, other) for other in Priority if other is not job.priority]
        more_keys += [key for lane in keys.LANES if (key := keys.stream(model, lane)) != stream]
        more_keys += [keys.idempotency(idempotency.key)] if idempotency else []
        deadline = "" if job.deadline_ms is None else job.deadline_ms
        payload = idempotency.payload_sha256 if idempotency else ""
        limits = (deadline, settings.queue_capacity, payload, settings.idempotency_ttl_s)
        outcome, job_id = await self.run_on_job(
            "enqueue", job, stream, tuple(more_keys), job.model_dump_json(), evaluations, job.priority.value, *limits
        )
        if outcome == b"full":
            raise QueueFull(f"{settings.queue_capacity} jobs of {model} wait or run already", RETRY_AFTER_S)
        if outcome == b"other payload":
            raise InvalidRequest("Idempotency-Key", "was used with another request; use a new key for a new request")
        return job_id.decode(), outcome == b"created"

    async def view(self, job_id: str) -> JobView:
        """The job as it is now. Raises NotFound."""
        async with self.answer():
            values: list[Any] = await self.redis.hmget(keys.job(job_id), list(VIEW_FIELDS))
        row: dict[str, Any] = {name: value.decode() for name, value in zip(VIEW_FIELDS, values, strict=True) if value}
        if "job" not in row:
            raise NotFound(f"no job {job_id}")
        job = Job.model_validate_json(row.pop("job")).model_copy(update={"created_ms": int(row.pop("created_ms"))})
        result = Result.model_validate_json(row.pop("result")) if "result" in row else None
        missing: dict[str, Any] = {"started_ms": None, "finished_ms": None, "error": None}
        return JobView.model_validate({**missing, **row, "job": job, "result": result})

    async def image(self, job_id: str, index: int) -> bytes:
        """The encoded image. Raises NotFound."""
        async with self.answer():
            data: Any = await self.redis.hget(keys.images(job_id), str(index))
        if not isinstance(data, bytes):
            raise NotFound(f"no image {index} of job {job_id}")
        return data

    async def events(self, job_id: str, after: str = "") -> list[tuple[str, Event]]:
        """(id, event) in order, those after the event with id ``after``; the end of the job is always the last.

        Raises NotFound, and InvalidRequest when ``after`` is no event id.
        """
        if after and not re.fullmatch(r"\d{1,15}-\d{1,15}", after, re.ASCII):
            raise InvalidRequest("Last-Event-ID", "must be the id of an event of this job, such as 12-0")
        async with self.answer(), self.redis.pipeline(transaction=True) as pipe:
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
        status = await self.run_on_job("cancel", job, keys.stream(job.model, job.priority.value), ())
        if status is None:
            raise NotFound(f"no job {job_id}")
        return Status(status.decode())

    async def depths(self, model: str) -> dict[str, int]:
        """Jobs that wait or run, per priority."""
        async with self.answer(), self.redis.pipeline(transaction=True) as pipe:
            for priority in Priority:
                pipe.zcard(keys.active(model, priority))
            counts = await pipe.execute()
        return {priority.value: int(count) for priority, count in zip(Priority, counts, strict=True)}

    async def oldest_s(self, model: str) -> dict[str, float]:
        """Seconds that the oldest unread entry waits, per priority; 0 when there is none."""
        ages_ms = await self.run("oldest", [keys.stream(model, priority.value) for priority in Priority])
        return {priority.value: age_ms / 1000 for priority, age_ms in zip(Priority, ages_ms, strict=True)}

    async def workers(self) -> list[WorkerInfo]:
        """Live registrations, by worker id."""
        records = await self.run("workers", [keys.WORKERS, keys.WORKERS_UNTIL])
        return sorted((WorkerInfo.model_validate_json(record) for record in records), key=lambda worker: worker.id)

    async def fenced_writes(self) -> int:
        """Writes refused since Redis was set up, because another worker owned the job."""
        return await self._counter("fenced")

    async def dead_lettered(self) -> int:
        """Jobs given up since Redis was set up, because each worker that ran them was lost."""
        return await self._counter("dead_lettered")

    async def ended(self) -> dict[str, int]:
        """Jobs that ended since Redis was set up, per status: also those that no worker ever ran."""
        names = [status.value for status in Status if status.terminal]
        async with self.answer():
            counts: Any = await self.redis.hmget(keys.COUNTERS, names)
        return {name: int(count or 0) for name, count in zip(names, counts, strict=True)}

    async def memory(self) -> tuple[int, int]:
        """Bytes that Redis uses, and the most that it may use; 0: it has no limit."""
        async with self.answer():
            info: Any = await self.redis.info("memory")
        return info["used_memory"], info["maxmemory"]

    async def _counter(self, name: str) -> int:
        async with self.answer():
            return int(await self.redis.hget(keys.COUNTERS, name) or 0)
