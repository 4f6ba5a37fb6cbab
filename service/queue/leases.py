"""What a worker does with the jobs that it has: keep them, report on them, end them, give them back."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from service.errors import DeadlinePassed, StaleEpoch
from service.messages import Checkpoint, Event, Failure, Job, Result, Status
from service.queue import keys
from service.queue.pixels import NO_PIXELS, Pixels
from service.queue.previews import Shown
from service.queue.scripts import ADAPT, FINISH, PROGRESS, RELEASE, SHOW, Argument, Script, ScriptCall
from service.queue.store import Store, job_keys

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
    suspect: bool = False
    """A worker or a Triton was lost with it, and it has not moved forward since: it runs alone until it does."""
    watched: bool = False
    """Somebody wanted previews of it when it was claimed."""
    pixels: Pixels = NO_PIXELS


class Leases:
    """The worker's side of the queue. Every method raises RedisUnavailable.

    Every report on a lease raises StaleEpoch when the job is no longer the worker's, who drops it then.

    A lease is held until it is completed, failed, cancelled, released, refused or forgotten; as long as this process
    holds it, its own ``Claims`` leave the job alone. ``watched``: the held jobs of which somebody wants previews, as
    their claims and the last reports on them said.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.held: set[Entry] = set()
        self.watched: set[str] = set()

    def hold(self, leases: Iterable[Lease]) -> None:
        for lease in leases:
            self.held.add((lease.stream, lease.entry_id))
            if lease.watched:
                self.watched.add(lease.job.id)

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
        calls = []
        for lease, event, checkpoint in reports:
            told: dict[str, Argument] = {
                "checkpoint": checkpoint.model_dump_json() if checkpoint else "",
                "trial": "",
            }
            if event:
                told |= event.model_dump(mode="json") | {"detail": event.detail or ""}
            calls.append(self._on_job(PROGRESS, lease, told))
        replies = await self.store.run_all(PROGRESS, calls)
        self.watched.update(
            lease.job.id for (lease, _, _), reply in zip(reports, replies, strict=True) if reply == b"show"
        )
        return [
            self._stale(lease, reply) or reply != b"cancel"
            for (lease, _, _), reply in zip(reports, replies, strict=True)
        ]

    async def show_all(self, shown: Iterable[tuple[Lease, Shown]]) -> None:
        """Keep the newest previews of jobs, for those who follow them; of a job that is ours no longer, nothing."""
        calls = [self._on_job(SHOW, lease, {"previews": all_.model_dump_json()}) for lease, all_ in shown]
        await self.store.run_all(SHOW, calls)

    async def begin_trial(self, lease: Lease) -> None:
        """From now on nothing else runs beside the job: if this worker or its Triton is lost, it counts against it."""
        reply = await self.store.run(PROGRESS, self._on_job(PROGRESS, lease, {"checkpoint": "", "trial": 1}))
        self._refuse_stale(lease, reply)

    async def adapt(self, lease: Lease, evaluations: int, changes: Sequence[str]) -> None:
        """From now on the job is what ``lease.job`` says, for whoever runs or reads it; ``changes``: for the client."""
        told: dict[str, Argument] = {
            "record": lease.job.model_dump_json(),
            "evaluations": evaluations,
            "changes": json.dumps(changes),
        }
        self._refuse_stale(lease, await self.store.run(ADAPT, self._on_job(ADAPT, lease, told)))

    async def complete(self, lease: Lease, result: Result, images: list[bytes]) -> None:
        """Store the result and the images, and end the job, at once. Of those that ``result`` says are stored
        elsewhere, ``images`` has nothing but their places."""
        await self._finish(lease, Status.SUCCEEDED, result=result, images=images)

    async def fail(self, lease: Lease, failure: Failure) -> None:
        await self._finish(lease, Status.FAILED, failure=failure.model_dump_json())

    async def cancelled(self, lease: Lease) -> None:
        await self._finish(lease, Status.CANCELLED)

    async def release(self, lease: Lease, checkpoint: Checkpoint | None, blame: bool = False) -> None:
        """Give the job back for any worker to take at once. The attempt does not count, unless it is to ``blame``."""
        place = {"handover": keys.stream(lease.job.model, keys.HANDOVER), "bell": keys.bell(lease.job.model)}
        saved = checkpoint.model_dump_json() if checkpoint else ""
        told: dict[str, Argument] = {
            "priority": lease.job.priority.value,
            "rows": lease.job.parameters.n,
            "checkpoint": saved,
            "blame": int(blame),
        }
        reply = await self.store.run(RELEASE, self._on_job(RELEASE, lease, told, place))
        self.forget(lease)
        self._refuse_stale(lease, reply)

    def forget(self, lease: Lease) -> None:
        """Drop a lease without a word to Redis: anyone, we too, may recover the job once the lease has run out."""
        self.held.discard((lease.stream, lease.entry_id))
        self.watched.discard(lease.job.id)

    async def _finish(
        self,
        lease: Lease,
        status: Status,
        failure: str = "",
        result: Result | None = None,
        images: Sequence[bytes] = (),
    ) -> None:
        elsewhere = [info.stored.size for info in result.images if info.stored] if result else []
        told: dict[str, Argument] = {
            "status": status.value,
            "failure": failure,
            "result": result.model_dump_json() if result else "",
            "bytes": sum(map(len, images)) + sum(elsewhere),
        }
        call = self._on_job(FINISH, lease, told, {"images": keys.images(lease.job.id)}, images)
        reply = await self.store.run(FINISH, call)
        self.forget(lease)
        self._refuse_stale(lease, reply)

    def _on_job(
        self,
        script: Script,
        lease: Lease,
        arguments: Mapping[str, Argument],
        more_keys: Mapping[str, str] | None = None,
        rest: Iterable[Argument] = (),
    ) -> ScriptCall:
        """A run of a script that checks the lease."""
        job = lease.job
        touched = job_keys(job.id, job.model, job.priority, lease.stream) | dict(more_keys or {})
        fence: dict[str, Argument] = {"epoch": lease.epoch, "entry": lease.entry_id}
        return script.call(touched, {**self.store.job_arguments(job.id), **fence, **arguments}, rest=rest)

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
