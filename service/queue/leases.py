"""What a worker does with the queue: take jobs, keep them, report on them, give them back."""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from service.errors import DeadlinePassed, StaleEpoch
from service.messages import Checkpoint, Event, Job, Priority, Result, WorkerInfo, complaints
from service.queue import keys
from service.queue.connection import Argument, Connection, ScriptCall, job_keys
from service.settings import Settings

log = logging.getLogger(__name__)

FORGET_CONSUMER_MS = 3_600_000
OWN_ENTRIES_READ = 1000
"""More than one worker ever holds; what is beyond would be recovered when its lease ends."""

Entry = tuple[str, str]
"""Stream and entry id."""


@dataclass(frozen=True)
class Lease:
    """One worker's right to one job, as of its claim. Every write names ``epoch``; a later claim makes it void."""

    job: Job
    epoch: int
    stream: str
    entry_id: str
    attempts: int
    evaluation: int
    """The highest that any event of the job has announced."""
    checkpoint: Checkpoint | None
    claimed_ms: int
    """Redis time of this claim."""


class WorkerSide(Connection):
    """Every report on a lease raises StaleEpoch when the job is no longer the worker's, who drops it then.

    A lease is held until it is completed, failed, cancelled, released, refused or forgotten; as long as this process
    holds it, its own take and recover leave the job alone.
    """

    def __init__(self, redis: Redis, settings: Settings) -> None:
        super().__init__(redis, settings)
        self._held: set[Entry] = set()
        self._prepared: set[str] = set()
        self._drained: set[tuple[str, str]] = set()
        self._started: set[tuple[str, str]] = set()
        self._lock = asyncio.Lock()

    async def register(self, info: WorkerInfo, ttl_ms: int) -> None:
        """Say that this worker lives, for ``ttl_ms``; to be repeated before they end."""
        await self.run("workers", [keys.WORKERS, keys.WORKERS_UNTIL], info.id, info.model_dump_json(), ttl_ms)

    async def unregister(self, worker_id: str) -> None:
        await self.run("workers", [keys.WORKERS, keys.WORKERS_UNTIL], worker_id)

    async def take(
        self, model: str, worker_id: str, limit: int, block_ms: int, batch_first: bool = False
    ) -> list[Lease]:
        """Up to ``limit`` jobs, waiting up to ``block_ms`` for the first: own entries left by a fault or a predecessor
        of the same name, then handed-over jobs, then interactive, then batch (``batch_first`` swaps these two).

        May be cancelled safely while it waits. Cancelled while it reads, it leaves entries in the worker's name;
        the next take finds them, and so does another worker's recover after the lease.
        """
        until_s = time.monotonic() + block_ms / 1000
        while limit > 0:
            async with self._claiming(model, worker_id):
                leases = await self._take_own(model, worker_id, limit)
                newest = await self._take_new(model, worker_id, limit, batch_first, leases)
                self._hold(leases)
            wait_s = until_s - time.monotonic()
            if leases or wait_s <= 0:
                return leases
            await self._await_newer(newest, wait_s)
        return []

    async def recover(self, model: str, worker_id: str, limit: int) -> list[Lease]:
        """Up to ``limit`` jobs whose workers were silent for a lease; those that lost too many workers are given up."""
        leases: list[Lease] = []
        async with self._claiming(model, worker_id):
            for lane in keys.LANES:
                leases += await self._recover_stream(model, worker_id, keys.stream(model, lane), limit - len(leases))
            self._hold(leases)
        return leases

    async def renew(self, lease: Lease) -> bool:
        """Keep the lease → False when the client asked to cancel."""
        return await self.progress(lease, None, None)

    async def progress(self, lease: Lease, event: Event | None, checkpoint: Checkpoint | None) -> bool:
        """Renew, announce ``event`` unless a lost worker has announced it or a later one, and save ``checkpoint``."""
        [outcome] = await self.progress_all([(lease, event, checkpoint)])
        if isinstance(outcome, StaleEpoch):
            raise outcome
        return outcome

    async def progress_all(
        self, reports: Sequence[tuple[Lease, Event | None, Checkpoint | None]]
    ) -> list[bool | StaleEpoch]:
        """``progress`` of many leases, sent together → what it would return or raise for each."""
        calls: list[ScriptCall] = []
        for lease, event, checkpoint in reports:
            job, saved = lease.job, checkpoint.model_dump_json() if checkpoint else ""
            place: list[Argument] = [job.id, self.settings.result_ttl_s, lease.epoch, lease.entry_id, saved]
            if event:
                place += [event.evaluation, event.evaluations, event.committed, event.status.value, event.detail or ""]
            calls.append((job_keys(job.id, job.model, job.priority, lease.stream), place))
        replies = await self.run_all("progress", calls)
        return [
            self._stale(lease, reply) or reply == b"go on"
            for (lease, _, _), reply in zip(reports, replies, strict=True)
        ]

    async def complete(self, lease: Lease, result: Result, images: list[bytes]) -> None:
        """Store the result and the images, and end the job, at once."""
        await self._finish(lease, "succeeded", "", result.model_dump_json(), *images)

    async def fail(self, lease: Lease, reason: str) -> None:
        await self._finish(lease, "failed", reason, "")

    async def cancelled(self, lease: Lease) -> None:
        await self._finish(lease, "cancelled", "", "")

    async def release(self, lease: Lease, checkpoint: Checkpoint | None) -> None:
        """Give the job back for any worker to take at once; the attempt does not count."""
        job, handover = lease.job, keys.stream(lease.job.model, keys.HANDOVER)
        saved = checkpoint.model_dump_json() if checkpoint else ""
        place = (lease.epoch, lease.entry_id, job.priority.value)
        reply = await self.run_on_job("release", job, lease.stream, (handover,), *place, saved)
        self.forget(lease)
        self._refuse_stale(lease, reply)

    def forget(self, lease: Lease) -> None:
        """Drop a lease without a word to Redis: anyone, we too, may recover the job once the lease has run out."""
        self._held.discard((lease.stream, lease.entry_id))

    async def _finish(self, lease: Lease, status: str, reason: str, *left: str | bytes) -> None:
        place = (lease.epoch, lease.entry_id, status, reason)
        more_keys = (keys.images(lease.job.id),)
        reply = await self.run_on_job("finish", lease.job, lease.stream, more_keys, *place, *left)
        self.forget(lease)
        self._refuse_stale(lease, reply)

    def _refuse_stale(self, lease: Lease, reply: bytes) -> None:
        if stale := self._stale(lease, reply):
            raise stale

    def _stale(self, lease: Lease, reply: bytes) -> StaleEpoch | None:
        """What is wrong with a lease that a script refused; it is forgotten."""
        if reply not in (b"stale", b"late"):
            return None
        self.forget(lease)
        job = f"job {lease.job.id}, epoch {lease.epoch}"
        if reply == b"late":
            return DeadlinePassed(f"{job}: its deadline has passed")
        return StaleEpoch(f"{job}: another worker owns it now, or it has ended")

    def _hold(self, leases: list[Lease]) -> None:
        self._held.update((lease.stream, lease.entry_id) for lease in leases)

    @asynccontextmanager
    async def _claiming(self, model: str, worker_id: str) -> AsyncIterator[None]:
        """One claimer at a time, groups made. After a fault, entries may be ours unknown to us: look again."""
        async with self._lock:
            try:
                await self._prepare(model)
                yield
            except BaseException:
                self._prepared.discard(model)
                self._drained.discard((model, worker_id))
                raise

    async def _prepare(self, model: str) -> None:
        if model in self._prepared:
            return
        for lane in keys.LANES:
            async with self.answer():
                try:
                    await self.redis.xgroup_create(keys.stream(model, lane), keys.GROUP, id="0", mkstream=True)
                except ResponseError as error:
                    if not str(error).startswith("BUSYGROUP"):
                        raise
            await self.run("tidy", [keys.stream(model, lane)], keys.GROUP, FORGET_CONSUMER_MS)
        self._prepared.add(model)

    async def _take_own(self, model: str, worker_id: str, limit: int) -> list[Lease]:
        """Entries pending in our name that we do not hold: a fault swallowed them, or a predecessor left them."""
        who = (model, worker_id)
        if who in self._drained:
            return []
        # Our own fault is no attempt; a predecessor of the same name was lost like any other worker.
        lost, leases = int(who not in self._started), list[Lease]()
        for stream in (keys.stream(model, lane) for lane in keys.LANES):
            for entry_id in await self._own_entries(stream, worker_id):
                if (stream, entry_id) in self._held:
                    continue
                if len(leases) == limit:
                    return leases
                async with self.answer():
                    rows: Any = await self.redis.xrange(stream, entry_id, entry_id)
                leases += await self._claim(model, worker_id, stream, rows, lost)
        self._drained.add(who)
        self._started.add(who)
        return leases

    async def _own_entries(self, stream: str, worker_id: str) -> list[str]:
        async with self.answer():
            pending: Any = await self.redis.xpending_range(stream, keys.GROUP, "-", "+", OWN_ENTRIES_READ, worker_id)
        return [row["message_id"].decode() for row in pending]

    async def _take_new(
        self, model: str, worker_id: str, limit: int, batch_first: bool, leases: list[Lease]
    ) -> dict[Any, Any]:
        """Add to ``leases`` up to ``limit`` → stream to its newest entry's id when the last read was made."""
        order = [Priority.BATCH, Priority.INTERACTIVE] if batch_first else [Priority.INTERACTIVE, Priority.BATCH]
        streams = [keys.stream(model, lane) for lane in (keys.HANDOVER, *order)]
        newest = [b"0-0"] * len(streams)
        # Again as long as there are entries: a cancelled one fills no place.
        while (room := limit - len(leases)) > 0:
            async with self.answer():
                reply: Any = await self.scripts["read"](streams, [keys.GROUP, worker_id, room], client=self.reader)
            delivered, newest = reply
            for stream, rows in zip(streams, delivered, strict=True):
                entries = [(entry_id, dict(zip(f[::2], f[1::2], strict=True))) for entry_id, f in rows]
                leases += await self._claim(model, worker_id, stream, entries, 1)
            if sum(map(len, delivered)) < room:
                break
        return dict(zip(streams, newest, strict=True))

    async def _recover_stream(self, model: str, worker_id: str, stream: str, limit: int) -> list[Lease]:
        leases: list[Lease] = []
        cursor = "0-0"
        while (room := limit - len(leases)) > 0:
            async with self.answer():
                reply: Any = await self.reader.xautoclaim(
                    stream, keys.GROUP, worker_id, self.settings.lease_ms, cursor, count=room
                )
            # Our own slow renewals are no loss: claiming an entry that we hold would fence ourselves.
            rows = [row for row in reply[1] if row[0] and (stream, row[0].decode()) not in self._held]
            leases += await self._claim(model, worker_id, stream, rows, 1)
            cursor = reply[0].decode()
            if cursor == "0-0":
                break
        return leases

    async def _claim(
        self, model: str, worker_id: str, stream: str, rows: list[tuple[bytes, dict[bytes, bytes]]], lost: int
    ) -> list[Lease]:
        """Leases for the delivered entries that stand for a job to run. ``lost``: attempts to add to a running one."""
        if not rows:
            return []
        calls: list[ScriptCall] = []
        for entry_id, fields in rows:
            job_id, priority = fields[b"job"].decode(), Priority(fields[b"priority"].decode())
            touched = [*job_keys(job_id, model, priority, stream), keys.dead(model)]
            place: list[Argument] = [entry_id.decode(), worker_id, uuid.uuid4().hex, self.settings.max_attempts, lost]
            calls.append((touched, [job_id, self.settings.result_ttl_s, *place]))
        leases: list[Lease] = []
        for (touched, arguments), claim in zip(calls, await self.run_all("claim", calls), strict=True):
            if claim:
                try:
                    leases.append(read_lease(stream, str(arguments[2]), claim))
                except ValidationError as error:
                    await self._refuse(touched, arguments, claim[0], error)
        return leases

    async def _refuse(self, touched: list[str], claim: list[Argument], epoch: bytes, error: ValidationError) -> None:
        """Fail a claimed job of another version, which each worker of this one would stumble over."""
        job_id, result_ttl_s, entry_id = claim[:3]
        wrong = complaints(error)
        reason = f"the worker that took the job is of another version than what wrote it, and cannot read it: {wrong}"
        log.error("job %s fails: %s", job_id, reason)
        place = (job_id, result_ttl_s, epoch, entry_id, "failed", reason, "")
        await self.run("finish", [*touched[:6], keys.images(str(job_id))], *place)

    async def _await_newer(self, newest: dict[Any, Any], wait_s: float) -> None:
        """Block until a stream has a newer entry, or ``wait_s``. Reads outside the group, so it delivers nothing."""
        async with self.answer(wait_s):
            await self.reader.xread(newest, count=1, block=max(1, round(wait_s * 1000)))


def read_lease(stream: str, entry_id: str, row: list[bytes]) -> Lease:
    """The answer of claim.lua. ValidationError for a parameter that we do not know: without it, another picture."""
    epoch, attempts, evaluation, created_ms, job, checkpoint, claimed_ms = row
    return Lease(
        job=Job.model_validate_json(job, extra="forbid").model_copy(update={"created_ms": int(created_ms)}),
        epoch=int(epoch),
        stream=stream,
        entry_id=entry_id,
        attempts=int(attempts),
        evaluation=int(evaluation),
        checkpoint=Checkpoint.model_validate_json(checkpoint) if checkpoint else None,
        claimed_ms=int(claimed_ms),
    )
