"""The worker: takes jobs, runs their rows in batched calls, reports, checkpoints, and hands over when told to stop.

    take, recover ─▶ encode ─▶ scheduler ─▶ step calls ─▶ decode ─▶ complete
                                   report: progress, checkpoints, renewals, cancels

Each part is a named task of one TaskGroup: when one dies the worker stops loudly, and its jobs move on by lease.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

import numpy as np
from tokenizers import Tokenizer

from service.engine.inference import Inference
from service.engine.prompts import Prompts, Tokenised
from service.engine.scheduler import Call, Row, Scheduler
from service.errors import InferenceFailed, InvalidRequest, RedisUnavailable, TritonUnavailable, VqdError
from service.messages import ModelInfo
from service.queue.queue import JobQueue, Lease
from service.settings import Settings
from service.telemetry.choice import start_tracing
from service.telemetry.metrics import WorkerMetrics
from service.triton.client import TritonClient
from service.worker.health import Health
from service.worker.images import encode_image
from service.worker.ledger import Ledger
from service.worker.running import RunningJob, make_batch, make_rows
from service.worker.traces import Traces

log = logging.getLogger(__name__)

BATCH_FIRST_EVERY = 4
"""One take in so many looks at the batch class first, so that interactive load cannot starve it."""
BURST_LOOKS = 2
"""Looks at the queue for more before the first call of an idle worker, each only if the one before found something."""
TAKE_BLOCK_MS = 500
REPORT_S = 0.1


class Drained(Exception):
    """Ends the TaskGroup when everything is handed over; not an error."""


class Worker:
    """One worker on one Triton. ``run`` returns after ``stop``, and raises when one of its tasks died."""

    def __init__(
        self,
        worker_id: str,
        settings: Settings,
        queue: JobQueue,
        triton: TritonClient,
        info: ModelInfo,
        tokenizer: Tokenizer,
        metrics: WorkerMetrics,
    ) -> None:
        self.id, self.settings, self.queue, self.triton, self.info = worker_id, settings, queue, triton, info
        self.metrics = metrics
        self.prompts = Prompts(tokenizer, info)
        self.inference = Inference(triton, metrics, settings.max_batch, settings.calls_in_flight)
        self.scheduler = Scheduler(settings.max_batch, settings.call_target_ms / 1000)
        self.tracer = start_tracing(settings, "worker", worker_id)
        self.traces = Traces(self.tracer)
        self.ledger = Ledger(queue, self.scheduler, settings, metrics, self.traces)
        self.finished: list[Row] = []
        self.waiting = 0
        self.health = Health(worker_id, info, self.inference, self.ledger, metrics, self.go_on)
        self.rows_ready, self.grids_ready = asyncio.Event(), asyncio.Event()
        self.taking, self.decoding = asyncio.Lock(), asyncio.Lock()
        self.parts: list[asyncio.Task[None]] = []

    def stop(self) -> None:
        """Begin to drain: no new jobs; calls in flight end; everything else is handed over."""
        self.health.stopping.set()

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as self.group:
                for part in (
                    self.admit,
                    self.recover,
                    self.step,
                    self.decode,
                    self.report,
                    self.health.register,
                    self.drain,
                ):
                    self.parts.append(self.group.create_task(part(), name=f"worker {part.__name__}"))
        except* Drained:
            log.info("drained")

    def go_on(self) -> None:
        """Triton answers: look for work that waited for it."""
        self.rows_ready.set()
        self.grids_ready.set()

    # Admission

    @property
    def accepting(self) -> bool:
        return self.health.running and self.room > 0

    @property
    def room(self) -> int:
        return self.settings.max_rows - self.ledger.rows

    async def admit(self) -> None:
        """Take jobs while there is room; blocks on the queue when idle."""
        takes = 0
        while True:
            if not self.accepting:
                await asyncio.sleep(REPORT_S)
                continue
            takes += 1
            batch_first = takes % BATCH_FIRST_EVERY == 0
            await self.start(partial(self.queue.take, block_ms=TAKE_BLOCK_MS, batch_first=batch_first))

    async def recover(self) -> None:
        """Take over jobs whose workers fell silent."""
        while True:
            await asyncio.sleep(self.settings.scan_ms / 1000)
            if self.accepting:
                await self.start(self.queue.recover)

    async def start(self, source: Callable[[str, str, int], Awaitable[list[Lease]]]) -> None:
        """Admit the jobs that ``source(model, worker, room)`` gives, under a lock: a drain cuts no read short."""
        async with self.taking:
            if not self.accepting:
                return
            jobs = more = await self.encode(await self.read(source))
            for _ in range(BURST_LOOKS):
                if not more or not self.accepting or len(self.scheduler):
                    break
                # Perhaps the first of a burst: who has come by now joins its first call, and ends with it.
                more = await self.encode(await self.read(partial(self.queue.take, block_ms=0)))
                jobs = [*jobs, *more]
            for job in jobs:
                self.begin(job)

    async def read(self, source: Callable[[str, str, int], Awaitable[list[Lease]]]) -> list[Lease]:
        try:
            return await source(self.info.name, self.id, self.room)
        except RedisUnavailable as error:
            await self.ledger.wait_for_redis(error)
            return []

    async def encode(self, leases: list[Lease]) -> list[RunningJob]:
        """Hold new jobs, with their prompts encoded together."""
        admitted = time.monotonic()
        texts: list[Tokenised] = []
        accepted: list[tuple[Lease, list[Row]]] = []
        for lease in leases:
            if lease.epoch == 1:  # a job that comes from another worker has waited before
                self.metrics.queue_wait_seconds.observe((lease.claimed_ms - lease.job.created_ms) / 1000)
            self.traces.taken(lease)
            try:
                rows = make_rows(lease, self.info)
                pair = (
                    self.prompts.tokenise(lease.job.prompt),
                    self.prompts.tokenise_negative(lease.job.negative_prompt),
                )
            except InvalidRequest as error:
                await self.ledger.fail(lease, error)
            else:
                texts += pair
                accepted.append((lease, rows))
        if not accepted:
            return []
        self.waiting = len(accepted)
        try:
            with self.metrics.busy, self.traces.encode(lease for lease, _ in accepted):
                states, seconds = await self.inference.encode(texts)
        except VqdError as error:
            await self.give_up([lease for lease, _ in accepted], error)
            return []
        finally:
            self.waiting = 0
            self.rows_ready.set()  # the turn is free again
        jobs = [
            RunningJob(lease, self.info, rows, states[2 * i], states[2 * i + 1], seconds, admitted)
            for i, (lease, rows) in enumerate(accepted)
        ]
        for job in jobs:
            self.ledger.hold(job)
        return jobs

    async def give_up(self, leases: list[Lease], error: VqdError) -> None:
        """Triton does not answer: hand the jobs back. It answered nonsense: fail them."""
        if isinstance(error, TritonUnavailable):
            self.health.mark_unready(str(error))
        for lease in leases:
            if isinstance(error, TritonUnavailable):
                await self.ledger.release(lease, lease.checkpoint)
            else:
                await self.ledger.fail(lease, error)

    def begin(self, job: RunningJob) -> None:
        """Give its rows to the scheduler, unless it was cancelled or handed over meanwhile."""
        if not self.ledger.holds(job):
            return
        self.scheduler.add(row for row in job.rows if row.remaining)
        self.finish_rows([row for row in job.rows if not row.remaining])
        self.rows_ready.set()

    # Steps

    async def step(self) -> None:
        """Start calls whenever the scheduler has one and a turn is free: then every row that is here is in it."""
        turns = self.inference.turns
        while True:
            await self.rows_ready.wait()
            self.rows_ready.clear()
            while self.health.running and not turns.locked() and (call := self.scheduler.next_call(self.waiting)):
                await turns.acquire()
                # Now, not in the task: a job may be dropped before the task runs for the first time.
                jobs = [self.ledger.held[row.job_id] for row in call.rows]
                self.group.create_task(self.run_call(call, jobs), name="worker step call")

    async def run_call(self, call: Call, jobs: list[RunningJob]) -> None:
        failure: VqdError | None = None
        try:
            with self.traces.step(call, jobs):
                output, seconds = await self.inference.step(make_batch(call, jobs))
        except VqdError as error:
            failure = error
            # It answered nonsense: one row may spoil it for all, so each runs alone next.
            self.scheduler.give_back(call, alone=isinstance(error, InferenceFailed))
        else:
            for job in set(jobs):
                job.steps_s += seconds
                job.calls += 1
            self.finish_rows(self.scheduler.finish(call, output.tokens, seconds))
        finally:
            self.inference.turns.release()
        # Rows of jobs that were cancelled or fenced while the call ran.
        self.scheduler.remove([row for row in call.rows if self.ledger.owner(row) is None])
        if isinstance(failure, TritonUnavailable):
            await self.hand_over(failure)
        elif failure and len(call.rows) == 1:
            await self.ledger.fail_held(jobs[0], failure)
        self.rows_ready.set()

    async def hand_over(self, error: TritonUnavailable) -> None:
        """Without a Triton there is nothing to do here."""
        self.health.mark_unready(str(error))
        await self.ledger.release_all()

    def finish_rows(self, rows: list[Row]) -> None:
        self.finished += rows
        if rows:
            self.grids_ready.set()

    # Decoding

    async def decode(self) -> None:
        """Decode finished grids in batches and complete the jobs that have all their pictures."""
        while True:
            await self.grids_ready.wait()
            self.grids_ready.clear()
            async with self.decoding:
                while self.finished and self.health.running:
                    await self.decode_batch()

    async def decode_batch(self) -> None:
        rows, self.finished = self.finished[: self.settings.max_batch], self.finished[self.settings.max_batch :]
        owned = [(row, job) for row in rows if (job := self.ledger.owner(row))]
        if not owned:
            return
        jobs = {job.id: job for _, job in owned}
        try:
            with self.traces.decode(jobs.values()):
                pictures, seconds = await self.inference.decode(np.stack([row.tokens for row, _ in owned]))
        except TritonUnavailable as error:
            await self.hand_over(error)
            return
        except VqdError as error:
            for job in jobs.values():
                await self.ledger.fail_held(job, error)
            return
        finally:
            self.rows_ready.set()
        formats = [job.lease.job.parameters.format for _, job in owned]
        files = await asyncio.to_thread(lambda: [*map(encode_image, pictures, formats)])
        for (row, job), file in zip(owned, files, strict=True):
            job.files[row.image] = file
        for job in jobs.values():
            job.decode_s += seconds
        await asyncio.gather(*(self.ledger.complete(job) for job in jobs.values() if len(job.files) == len(job.rows)))

    async def report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            self.metrics.tick()
            await self.ledger.report_all()

    # The end

    def dead_parts(self) -> list[str]:
        """Tasks that ended: then the worker ends, too, unless another task does not let itself be cancelled."""
        return [part.get_name() for part in self.parts if part.done()]

    async def drain(self) -> None:
        """After ``stop``: let reads, calls and decodes in flight end, hand everything over, and end the worker.

        In ``drain_s`` at most: without Redis or Triton there may be nobody to wait for, and leases move jobs on anyway.
        """
        await self.health.stopping.wait()
        began = time.monotonic()
        try:
            async with asyncio.timeout(self.settings.drain_s):
                async with self.taking, self.decoding:
                    while self.scheduler.running:
                        await asyncio.sleep(REPORT_S / 10)
                    await self.ledger.release_all()
                await self.queue.unregister(self.id)
        except (TimeoutError, RedisUnavailable) as error:
            log.warning("not everything was handed over: %s", error or "no time left")
        log.info("drained in %.2f s", time.monotonic() - began)
        raise Drained
