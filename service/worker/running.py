"""A job that this worker holds: its rows, what it has cost, and what is told to the queue about it."""

import asyncio
import base64
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.diffusion.noise import uniforms
from service.diffusion.plan import make_plan
from service.engine.scheduler import Call, Row
from service.messages import (
    Checkpoint,
    Event,
    ImageInfo,
    ModelInfo,
    PurityForm,
    Result,
    RowState,
    Sampler,
    Status,
    Timings,
)
from service.queue.queue import Lease
from service.triton.contract import Float16, Int32, StepBatch

Scalar = TypeVar("Scalar", bound=np.generic)


def pack(tokens: Int32) -> str:
    """A grid as base64 of little-endian int32."""
    return base64.b64encode(tokens.astype("<i4").tobytes()).decode()


def unpack(packed: str) -> Int32:
    return np.frombuffer(base64.b64decode(packed), "<i4").astype(np.int32)


def digest(tokens: Int32) -> str:
    """SHA-256 of a grid: the identity of a picture, whatever its file format."""
    return hashlib.sha256(tokens.astype("<i4").tobytes()).hexdigest()


@dataclass(eq=False)
class RunningJob:
    """Everything the worker knows of a job between its claim and its end. ``lock`` serialises writes to the queue."""

    lease: Lease
    info: ModelInfo
    rows: list[Row]
    context: Float16
    null_context: Float16
    encode_s: float
    admitted: float
    """Monotonic time of the claim."""
    steps_s: float = 0.0
    calls: int = 0
    """Step calls that carried a row of it."""
    decode_s: float = 0.0
    files: dict[int, bytes] = field(default_factory=dict)
    reported: int = 0
    renewed: float = field(default_factory=time.monotonic)
    checkpointed: float = field(default_factory=time.monotonic)
    resumed_at: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.resumed_at = self.reported = self.evaluation

    @property
    def id(self) -> str:
        return self.lease.job.id

    @property
    def evaluation(self) -> int:
        """Evaluations done, over all images."""
        return sum(row.evaluation for row in self.rows)

    def event(self) -> Event:
        committed = sum(np.count_nonzero(row.tokens != self.info.codes) for row in self.rows)
        return Event(
            evaluation=self.evaluation,
            evaluations=sum(len(row.plan) for row in self.rows),
            committed=committed / (len(self.rows) * self.info.tokens),
            status=Status.RUNNING,
        )

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(rows=tuple(RowState(evaluation=r.evaluation, tokens=pack(r.tokens)) for r in self.rows))

    def due(self, renew_s: float) -> bool:
        """Whether there is progress to tell, or the lease wants renewing."""
        return self.evaluation > self.reported or time.monotonic() - self.renewed > renew_s

    def due_checkpoint(self, every_s: float) -> Checkpoint | None:
        return self.checkpoint() if time.monotonic() - self.checkpointed > every_s else None

    def note_reported(self, checkpoint: Checkpoint | None) -> None:
        self.reported, self.renewed = self.evaluation, time.monotonic()
        if checkpoint:
            self.checkpointed = self.renewed

    def result(self) -> Result:
        """To be called when every image is decoded."""
        seed = self.lease.job.parameters.seed
        queue_s = (self.lease.claimed_ms - self.lease.job.created_ms) / 1000
        return Result(
            images=tuple(ImageInfo(index=row.image, seed=seed, tokens_sha256=digest(row.tokens)) for row in self.rows),
            evaluations=sum(len(row.plan) for row in self.rows),
            evaluations_repeated=max(0, self.lease.evaluation - self.resumed_at),
            timings=Timings(
                queue_s=queue_s,
                encode_s=self.encode_s,
                steps_s=self.steps_s,
                decode_s=self.decode_s,
                total_s=queue_s + time.monotonic() - self.admitted,
            ),
        )


def make_rows(lease: Lease, info: ModelInfo) -> list[Row]:
    """One row per image: all masked, or as the checkpoint left them. Raises InvalidRequest for an impossible plan."""
    job = lease.job
    plan = make_plan(job.parameters, info.tokens, info.timesteps)
    fresh = [Row(job.id, i, plan, np.full(info.tokens, info.codes, np.int32)) for i in range(job.parameters.n)]
    if lease.checkpoint:
        for row, state in zip(fresh, lease.checkpoint.rows, strict=True):
            row.evaluation, row.tokens = state.evaluation, unpack(state.tokens)
    return fresh


def make_batch(call: Call, jobs: Sequence[RunningJob]) -> StepBatch:
    """The tensors of a call; ``jobs[i]`` is the job of ``call.rows[i]``."""
    spans = [(row, slice(row.evaluation, row.evaluation + call.evaluations)) for row in call.rows]
    parameters = [job.lease.job.parameters for job in jobs]
    tokens = np.stack([row.tokens for row in call.rows])

    def scalars(values: Sequence[float], dtype: type[Scalar]) -> NDArray[Scalar]:
        return np.array(values, dtype)[:, None]

    return StepBatch(
        tokens=tokens,
        pinned=np.full_like(tokens, -1),
        context=np.stack([job.context for job in jobs]),
        null_context=np.stack([job.null_context for job in jobs]),
        timestep=np.stack([row.plan.timestep[span] for row, span in spans]),
        timestep_next=np.stack([row.plan.timestep_next[span] for row, span in spans]),
        reveal=np.stack([row.plan.reveal[span] for row, span in spans]),
        guidance=np.stack([row.plan.guidance[span] for row, span in spans]),
        selection=scalars([p.sampler is Sampler.PURITY for p in parameters], np.int32),
        purity_r=scalars([p.purity_r for p in parameters], np.float32),
        temperature=scalars([p.temperature for p in parameters], np.float32),
        truncation=scalars([p.truncation_rate for p in parameters], np.float32),
        purity_form=scalars([p.purity_form is PurityForm.POWER for p in parameters], np.int32),
        uniforms=np.stack(
            [
                uniforms(p.seed, row.image, row.evaluation, call.evaluations, len(row.tokens))
                for row, p in zip(call.rows, parameters, strict=True)
            ]
        ),
    )
