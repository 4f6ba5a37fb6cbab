"""A job that this worker holds, from its claim to its end. It alone is its owner: nothing else ends it or holds rows.

claimed ─▶ encoding ─▶ running ─▶ decoding ─▶ (storing) ─▶ settling ─▶ gone
    └──────────┴──────────┴───────────┴─── fail, release, cancel, lose ──┘
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial

import numpy as np

from service.diffusion.samplers import make_plan
from service.diffusion.start import masked_at_first
from service.engine.grid import pack, saved_grids, tokens_sha256
from service.engine.row import Row, masked
from service.errors import StaleEpoch, VqdError
from service.messages import Checkpoint, Event, Failure, ImageInfo, Priority, Result, RowState, Status, Stored, Timings
from service.queue.leases import Lease
from service.serving import ModelInfo
from service.telemetry.metrics import running_version
from service.triton.contract import Array, Int32, UInt8
from service.worker.settlement import Settlement, ids_of, loggable

log = logging.getLogger(__name__)


class State(IntEnum):
    """In this order, and never back."""

    CLAIMED = 1
    ENCODING = 2
    RUNNING = 3
    DECODING = 4
    STORING = 5
    """Its pictures are on the way to S3 storage."""
    SETTLING = 6
    """Its last word is on the way to the queue."""
    GONE = 7


@dataclass(eq=False, kw_only=True)
class JobRow(Row):
    """An image of a job that this worker holds."""

    job: "HeldJob"


@dataclass(eq=False)
class HeldJob:
    """``lock`` serialises writes to the queue. Times are monotonic seconds."""

    lease: Lease
    info: ModelInfo
    settlement: Settlement
    on_gone: Callable[["HeldJob"], None]
    rows: list[JobRow] = field(default_factory=list)
    state: State = State.CLAIMED
    claimed_s: float = field(default_factory=time.monotonic)
    encode_s: float = 0.0
    steps_s: float = 0.0
    decode_s: float = 0.0
    calls: int = 0
    """Step calls that carried a row of it."""
    first_s: float | None = None
    first_call: int | None = None
    """As in Timings."""
    original: UInt8 | None = None
    """The picture that it starts from, [H, W, 3]."""
    warnings: tuple[str, ...] = ()
    """What of its prompts is not drawn as it is written."""
    text_tokens: int = 0
    files: dict[int, bytes] = field(default_factory=dict)
    stored: dict[int, Stored] = field(default_factory=dict)
    """By image, like ``files``: those that need not go to Redis."""
    resumed_at: int = 0
    started_again: bool = False
    reported: int = 0
    renewed_s: float = field(default_factory=time.monotonic)
    checkpointed_s: float = field(default_factory=time.monotonic)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def id(self) -> str:
        return self.lease.job.id

    @property
    def images(self) -> int:
        return self.lease.job.parameters.n

    @property
    def masked(self) -> int:
        """How many positions of an image have no code before its first evaluation."""
        return masked_at_first(self.lease.job.edit, self.info.tokens)

    @property
    def held(self) -> bool:
        """Whether it may still be worked on and reported on."""
        return self.state < State.SETTLING

    @property
    def in_the_making(self) -> bool:
        """Whether it needs Triton still."""
        return self.state < State.STORING

    @property
    def evaluation(self) -> int:
        """Evaluations done, over all images."""
        return sum(row.evaluation for row in self.rows)

    def enter(self, state: State) -> None:
        """Raises RuntimeError for a step back: two parts would believe that the job is theirs."""
        if state < self.state:
            raise RuntimeError(f"job {self.id} is {self.state.name} and cannot become {state.name}")
        self.state = state
        if not self.held:
            for row in self.rows:
                row.dropped = True
        if state is State.GONE:
            self.on_gone(self)

    def make_rows(self) -> None:
        """One row per image: all masked, or as the checkpoint left them. Raises InvalidRequest: an impossible plan."""
        wanted, info = self.lease.job.parameters, self.info
        plans = [make_plan(wanted, info.tokens, info.timesteps, image, self.masked) for image in wanted.images]
        saved = saved_grids(self.lease.checkpoint, info, [len(plan) for plan in plans])
        self.rows = [
            JobRow(
                job=self,
                parameters=wanted,
                image=image,
                plan=plan,
                tokens=masked(info.tokens, info.codes),
                urgent=self.lease.job.priority is Priority.INTERACTIVE,
            )
            for image, plan in zip(wanted.images, plans, strict=True)
        ]
        for row, (tokens, evaluation) in zip(self.rows, saved, strict=False):  # as many as there are rows, or none
            row.advance(tokens, evaluation)
        self.started_again = self.lease.checkpoint is not None and not saved
        self.resumed_at = self.reported = self.evaluation

    def note_encoded(self, conditions: tuple[Array, ...], seconds: float, read: Int32 | None = None) -> None:
        """``read``: the tokens of the picture that it starts from."""
        self.encode_s = seconds
        for row in self.rows:
            row.conditions = conditions
            if edit := self.lease.job.edit:
                row.begin(edit, read, self.info.codes)

    @property
    def queue_s(self) -> float:
        return (self.lease.claimed_ms - self.lease.job.created_ms) / 1000

    @property
    def left_s(self) -> float:
        """Until its deadline; below 0 when that has passed."""
        limit_ms = self.lease.job.deadline_ms
        return math.inf if limit_ms is None else limit_ms / 1000 - self.queue_s - (time.monotonic() - self.claimed_s)

    def note_begun(self, calls: Iterable[float]) -> None:
        """A step call begins that carries a row of it; ``calls``: when each of the worker's last calls began."""
        if self.first_s is None:
            accepted_s = self.claimed_s - self.queue_s
            self.first_s = time.monotonic() - accepted_s
            self.first_call = sum(began_s >= accepted_s for began_s in calls)

    def note_call(self, seconds: float) -> None:
        """A step call that carried a row of it."""
        self.steps_s += seconds
        self.calls += 1

    # What is told to the queue

    def event(self) -> Event:
        committed = sum(np.count_nonzero(row.tokens != self.info.codes) for row in self.rows)
        return Event(
            evaluation=self.evaluation,
            evaluations=sum(len(row.plan) for row in self.rows),
            committed=committed / (self.images * self.info.tokens),
            status=Status.RUNNING,
        )

    def checkpoint(self) -> Checkpoint | None:
        """Of now; what the lease came with as long as nothing was added."""
        if self.evaluation == self.resumed_at and not self.started_again:
            return self.lease.checkpoint
        states = tuple(RowState(evaluation=row.evaluation, tokens=pack(row.tokens)) for row in self.rows)
        return Checkpoint(rows=states, model=self.info.fingerprint)

    def due(self, renew_s: float) -> bool:
        """Whether there is progress to tell, or the lease wants renewing."""
        return self.evaluation > self.reported or time.monotonic() - self.renewed_s > renew_s

    def due_checkpoint(self, every_s: float) -> Checkpoint | None:
        return self.checkpoint() if time.monotonic() - self.checkpointed_s > every_s else None

    def note_reported(self, checkpoint: Checkpoint | None) -> None:
        self.reported, self.renewed_s = self.evaluation, time.monotonic()
        if checkpoint:
            self.checkpointed_s = self.renewed_s

    def result(self) -> Result:
        """To be called when every image is decoded."""
        return Result(
            images=tuple(
                ImageInfo(
                    index=place,
                    seed=self.lease.job.parameters.seed,
                    tokens_sha256=tokens_sha256(row.tokens),
                    stored=self.stored.get(row.image),
                )
                for place, row in enumerate(self.rows)
            ),
            evaluations=sum(len(row.plan) for row in self.rows),
            evaluations_repeated=max(0, self.lease.evaluation - self.resumed_at),
            started_again=self.started_again,
            warnings=self.warnings,
            text_tokens=self.text_tokens,
            dtype=self.info.dtype,
            backend=self.info.backend,
            model_sha256=self.info.sha256,
            version=running_version(),
            timings=Timings(
                queue_s=self.queue_s,
                encode_s=self.encode_s,
                steps_s=self.steps_s,
                decode_s=self.decode_s,
                total_s=self.queue_s + time.monotonic() - self.claimed_s,
                first_s=self.first_s,
                first_call=self.first_call or None,
            ),
        )

    # Its end, once, whoever brings it about

    async def complete(self) -> None:
        """Store the result of a job whose pictures are all there, and those of them that are not stored elsewhere."""
        leases, metrics = self.settlement.leases, self.settlement.metrics
        result = self.result()
        files = [b"" if row.image in self.stored else self.files[row.image] for row in self.rows]
        began_ns = time.time_ns()
        if await self.end(partial(leases.complete, self.lease, result, files), Status.SUCCEEDED):
            metrics.images.inc(len(files))
            metrics.job_seconds.observe(result.timings.total_s)
            metrics.evaluations_repeated.inc(result.evaluations_repeated)
            self.settlement.traces.completed(self.lease, self.calls, began_ns)

    async def fail(self, error: VqdError) -> None:
        with ids_of(self.lease):
            log.warning("job fails: %s", loggable(error))
        await self.end(partial(self.settlement.leases.fail, self.lease, Failure.of(error)), Status.FAILED)

    async def release(self, blame: bool = False) -> None:
        """Give the job back, with a checkpoint of now, for any worker to take at once.

        ``blame``: it was in the call that Triton did not survive.
        """
        began_ns = time.time_ns()
        if await self.end(lambda: self.settlement.leases.release(self.lease, self.checkpoint(), blame)):
            self.settlement.metrics.handovers.inc()
            self.settlement.traces.handed_over(self.lease, began_ns)

    async def cancel(self) -> None:
        """The client asked for it."""
        await self.end(partial(self.settlement.leases.cancelled, self.lease), Status.CANCELLED)

    def lose(self, error: StaleEpoch) -> None:
        """The queue has said that the job is ours no longer: nothing more is written."""
        self.settlement.note_refused(error)
        self.enter(State.GONE)

    def leave(self) -> None:
        """Drop it without a word, for whoever finds it, which may be we: the last word may have been heard, or not."""
        self.settlement.leases.forget(self.lease)
        self.enter(State.GONE)

    async def end(self, write: Callable[[], Awaitable[None]], outcome: Status | None = None) -> bool:
        """The last word, when a report under way has ended → whether it counted; from now on no row of it runs.

        It does not when something else has ended the job before, or another worker owns it.
        """
        async with self.lock:
            if not self.held:
                return False
            self.enter(State.SETTLING)
            try:
                with ids_of(self.lease):
                    return await self.settlement.write(write, outcome)
            finally:
                self.enter(State.GONE)
