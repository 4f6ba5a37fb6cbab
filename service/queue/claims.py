"""How a worker comes by jobs: it takes new ones, and those of workers that fell silent."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic import ValidationError

from service.errors import OtherVersion
from service.messages import Checkpoint, Failure, Job, Priority, Status, complaints
from service.queue import keys
from service.queue.leases import Lease, Leases
from service.queue.pixels import Pixels
from service.queue.scripts import CLAIM, DISCARD, FINISH, PREPARE, READ, RECOVER, Argument, ScriptCall
from service.queue.store import job_keys

FORGET_CONSUMER_MS = 3_600_000
Row = tuple[bytes, Sequence[bytes]]
"""An entry as Redis gives it: id, and names and values in turn."""
ROOM_S = 0.1
"""Pause of who has too little room for what waits."""
OWN_ENTRIES_READ = 1000
"""More than one worker ever holds; what is beyond would be recovered when its lease ends."""


@dataclass(frozen=True)
class Delivery:
    """An entry that was read from a stream, and the job that it stands for."""

    model: str
    stream: str
    entry_id: str
    job_id: str
    priority: Priority

    @classmethod
    def of(cls, model: str, stream: str, entry_id: bytes, fields: Mapping[bytes, bytes]) -> Self:
        job, priority = fields[b"job"].decode(), Priority(fields[b"priority"].decode())
        return cls(model, stream, entry_id.decode(), job, priority)

    def keys(self) -> dict[str, str]:
        return job_keys(self.job_id, self.model, self.priority, self.stream)


class Claims:
    """Gives leases, which ``leases`` holds from then on. Every method raises RedisUnavailable."""

    def __init__(self, leases: Leases) -> None:
        self.leases, self.store = leases, leases.store
        self._prepared: set[str] = set()
        self._drained: set[tuple[str, str]] = set()
        self._started: set[tuple[str, str]] = set()
        self._scanned_s = float("-inf")
        self._lock = asyncio.Lock()

    async def take(
        self, model: str, worker_id: str, room: int, block_ms: int, batch_first: bool = False, reserve: int = 0
    ) -> list[Lease]:
        """Jobs of up to ``room`` rows, waiting up to ``block_ms`` for the first: own entries left by a fault or a
        predecessor of the same name, then jobs of silent workers, then handed-over ones, then interactive, then batch
        (``batch_first`` swaps these two), which leaves ``reserve`` rows free.

        May be cancelled safely while it waits. Cancelled while it reads, it leaves entries in the worker's name;
        the next take finds them, and so does another worker's recover after the lease.
        """
        until_s = time.monotonic() + block_ms / 1000
        while room > 0:
            async with self._claiming(model, worker_id):
                leases = await self._take_own(model, worker_id, room)
                if time.monotonic() - self._scanned_s > self.store.settings.scan_ms / 1000:
                    leases += await self._recover(model, worker_id, room - rows_of(leases))
                last_ring, waits = await self._take_new(model, worker_id, room, batch_first, reserve, leases)
                self.leases.hold(leases)
            wait_s = until_s - time.monotonic()
            if leases or wait_s <= 0:
                return leases
            if waits:  # for more room than there is now: not for newer entries
                await asyncio.sleep(min(wait_s, ROOM_S))
                return []
            await self._await_ring(model, last_ring, min(wait_s, self.store.settings.scan_ms / 1000))
        return []

    async def recover(self, model: str, worker_id: str, room: int) -> list[Lease]:
        """Jobs of up to ``room`` rows whose workers were silent for a lease; what was lost too often is given up."""
        async with self._claiming(model, worker_id):
            leases = await self._recover(model, worker_id, room)
            self.leases.hold(leases)
        return leases

    @contextlib.asynccontextmanager
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
        told: dict[str, Argument] = {"group": keys.GROUP, "idle_ms": FORGET_CONSUMER_MS}
        for lane in keys.LANES:
            await self.store.run(PREPARE, PREPARE.call({"stream": keys.stream(model, lane)}, told))
        self._prepared.add(model)

    async def _take_own(self, model: str, worker_id: str, room: int) -> list[Lease]:
        """Entries pending in our name that we do not hold: a fault swallowed them, or a predecessor left them."""
        who = (model, worker_id)
        if who in self._drained:
            return []
        # Our own fault is no attempt; a predecessor of the same name was lost like any other worker.
        lost, leases = int(who not in self._started), list[Lease]()
        for stream in (keys.stream(model, lane) for lane in keys.LANES):
            for entry_id in await self._own_entries(stream, worker_id):
                if (stream, entry_id) in self.leases.held:
                    continue
                if rows_of(leases) >= room:
                    return leases
                async with self.store.answer():
                    rows: Any = await self.store.redis.xrange(stream, entry_id, entry_id)
                entries = [(entry, [part for pair in fields.items() for part in pair]) for entry, fields in rows]
                leases += await self._claim(model, worker_id, stream, entries, lost)
        self._drained.add(who)
        self._started.add(who)
        return leases

    async def _own_entries(self, stream: str, worker_id: str) -> list[str]:
        async with self.store.answer():
            pending: Any = await self.store.redis.xpending_range(
                stream, keys.GROUP, "-", "+", OWN_ENTRIES_READ, worker_id
            )
        return [row["message_id"].decode() for row in pending]

    async def _take_new(
        self, model: str, worker_id: str, room: int, batch_first: bool, reserve: int, leases: list[Lease]
    ) -> tuple[bytes, bool]:
        """Add to ``leases`` → the bell's last ring at the last read; whether a job waits for more room."""
        order = [Priority.BATCH, Priority.INTERACTIVE] if batch_first else [Priority.INTERACTIVE, Priority.BATCH]
        names = (keys.HANDOVER, *(priority.value for priority in order))
        streams = [keys.stream(model, lane) for lane in names]
        lanes = [key for lane in names for key in (f(model, lane) for f in (keys.stream, keys.order, keys.turns))]
        last_ring, waits = b"0-0", 0
        touched = {"patient": keys.stream(model, Priority.BATCH.value), "bell": keys.bell(model)}
        # Again as long as there are entries: a cancelled one fills no place.
        while (left := room - rows_of(leases)) > 0:
            told: dict[str, Argument] = {
                "group": keys.GROUP,
                "worker": worker_id,
                "room": left,
                "reserve": reserve,
                "held": len(self.leases.held) + len(leases),
            }
            read = await self.store.run_once(READ, READ.call(touched, told, rest_keys=lanes))
            delivered, last_ring, waits = read
            for stream, rows in zip(streams, delivered, strict=True):
                leases += await self._claim(model, worker_id, stream, rows, 1)
            if not any(delivered):
                break
        return last_ring, bool(waits)

    async def _recover(self, model: str, worker_id: str, room: int) -> list[Lease]:
        if room <= 0:
            return []
        self._scanned_s = time.monotonic()
        streams = [keys.stream(model, lane) for lane in keys.LANES]
        told: dict[str, Argument] = {
            "group": keys.GROUP,
            "worker": worker_id,
            "room": room,
            "lease_ms": self.store.settings.lease_ms,
        }
        ours = [f"{stream} {entry}" for stream, entry in self.leases.held]
        found = await self.store.run_once(RECOVER, RECOVER.call({}, told, rest_keys=streams, rest=ours))
        leases: list[Lease] = []
        for stream, rows in zip(streams, found, strict=True):
            leases += await self._claim(model, worker_id, stream, rows, 1)
        return leases

    async def _claim(self, model: str, worker_id: str, stream: str, rows: Sequence[Row], lost: int) -> list[Lease]:
        """Leases for the delivered entries that stand for a job to run. ``lost``: whether the worker before us was."""
        deliveries = [
            delivery for entry_id, fields in rows if (delivery := await self._read(model, stream, entry_id, fields))
        ]
        if not deliveries:
            return []
        calls = [self._claim_call(delivery, worker_id, lost) for delivery in deliveries]
        leases: list[Lease] = []
        for delivery, claim in zip(deliveries, await self.store.run_all(CLAIM, calls), strict=True):
            if claim:
                try:
                    leases.append(self._read_lease(delivery, claim))
                except ValidationError as error:
                    await self._refuse(delivery, claim[0], error)
        return leases

    def _read_lease(self, delivery: Delivery, row: list[bytes]) -> Lease:
        """The answer of claim.lua. ValidationError for a parameter that we do not know: without it, another picture."""
        epoch, attempts, evaluation, created_ms, job, checkpoint, claimed_ms, suspect, watched, *pixels = row
        return Lease(
            job=Job.model_validate_json(job, extra="forbid").model_copy(update={"created_ms": int(created_ms)}),
            epoch=int(epoch),
            stream=delivery.stream,
            entry_id=delivery.entry_id,
            attempts=int(attempts),
            evaluation=int(evaluation),
            checkpoint=self._read_checkpoint(delivery.job_id, checkpoint),
            claimed_ms=int(claimed_ms),
            suspect=suspect == b"1",
            watched=watched == b"1",
            pixels=Pixels(*pixels),
        )

    def _read_checkpoint(self, job_id: str, record: bytes) -> Checkpoint | None:
        """None for one that this version cannot read: the job begins again, with the same pictures."""
        with contextlib.suppress(OtherVersion), self.store.records.reading("checkpoint", f"of job {job_id}"):
            return Checkpoint.model_validate_json(record) if record else None
        return None

    async def _read(self, model: str, stream: str, entry_id: bytes, fields: Sequence[bytes]) -> Delivery | None:
        """None for an entry that this version cannot read: it is moved away, or every worker would stumble over it."""
        record = dict(zip(fields[::2], fields[1::2], strict=True))
        try:
            return Delivery.of(model, stream, entry_id, record)
        except (KeyError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            self.store.records.note("entry", f"{entry_id.decode()} of {stream}", reason)
            told: dict[str, Argument] = {
                "group": keys.GROUP,
                "entry": entry_id.decode(),
                "reason": reason,
                "record": repr(record),
            }
            touched = {"stream": stream, "dead": keys.dead(model)}
            await self.store.run(DISCARD, DISCARD.call(touched, told))
            return None

    def _claim_call(self, delivery: Delivery, worker_id: str, lost: int) -> ScriptCall:
        told: dict[str, Argument] = {
            "entry": delivery.entry_id,
            "worker": worker_id,
            "claim": uuid.uuid4().hex,
            "max_attempts": self.store.settings.max_attempts,
            "lost": lost,
        }
        touched = delivery.keys() | {"dead": keys.dead(delivery.model)}
        return CLAIM.call(touched, self.store.job_arguments(delivery.job_id) | told)

    async def _refuse(self, delivery: Delivery, epoch: bytes, error: ValidationError) -> None:
        """Fail a claimed job of another version, which each worker of this one would stumble over."""
        wrong = complaints(error)
        reason = f"the worker that took the job is of another version than what wrote it, and cannot read it: {wrong}"
        self.store.records.note("job", delivery.job_id, wrong)
        told: dict[str, Argument] = {
            "epoch": epoch,
            "entry": delivery.entry_id,
            "status": Status.FAILED.value,
            "failure": Failure(kind="other-version", message=reason).model_dump_json(),
            "result": "",
        }
        touched = delivery.keys() | {"images": keys.images(delivery.job_id)}
        await self.store.run(FINISH, FINISH.call(touched, self.store.job_arguments(delivery.job_id) | told))

    async def _await_ring(self, model: str, last: bytes, wait_s: float) -> None:
        """Block until the bell rings after ``last``, or ``wait_s``: other versions put jobs there without ringing."""
        heard: dict[Any, Any] = {keys.bell(model): last}
        async with self.store.answer(wait_s):
            await self.store.reader.xread(heard, count=1, block=max(1, round(wait_s * 1000)))


def rows_of(leases: Sequence[Lease]) -> int:
    return sum(lease.job.parameters.n for lease in leases)
