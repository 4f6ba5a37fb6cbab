"""The worker: takes jobs, runs their rows in batched calls, reports, checkpoints, and hands over when told to stop.

    admission ─▶ stepper ─▶ decoder ─▶ a job's end
                    └── previews, for those who ask
         └── jobs: each held from its claim on ── reporter: progress, checkpoints, renewals, cancels

Each part is a named task of one TaskGroup: when one dies the worker stops loudly, and its jobs move on by lease.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from tokenizers import Tokenizer

from service.engine.conditions import Conditions
from service.engine.inference import Inference
from service.engine.scheduler import Scheduler
from service.engine.turns import Turns
from service.queue.claims import Claims
from service.queue.leases import Leases
from service.queue.registrations import Registrations
from service.queue.store import Store
from service.serving import ModelInfo
from service.settings import Settings
from service.storage import Bucket
from service.telemetry.metrics import WorkerMetrics
from service.telemetry.tracing import Tracer
from service.triton.client import TritonClient
from service.worker.admission import Admission
from service.worker.decoder import Decoder
from service.worker.drain import Drain, Drained
from service.worker.health import Health, Registration
from service.worker.job import JobRow
from service.worker.jobs import HeldJobs
from service.worker.outage import RedisOutage
from service.worker.previews import Previews
from service.worker.reporter import Reporter
from service.worker.settlement import Settlement
from service.worker.stepper import Stepper
from service.worker.traces import Traces
from service.worker.trials import Trials
from service.worker.uploads import Uploads

log = logging.getLogger(__name__)

Scheduling: TypeAlias = Callable[[int, float], Scheduler[JobRow]]
"""Most rows in a call and the seconds that it should take → who decides which rows are in the next."""


class Worker:
    """One worker on one Triton. ``run`` returns after ``stop``, and raises when one of its parts died."""

    def __init__(  # noqa: PLR0913, PLR0917  it only puts them together
        self,
        worker_id: str,
        settings: Settings,
        store: Store,
        triton: TritonClient,
        info: ModelInfo,
        tokenizer: Tokenizer | None,
        metrics: WorkerMetrics,
        tracer: Tracer,
        scheduling: Scheduling = Scheduler,
        bucket: Bucket | None = None,
    ) -> None:
        self.store, leases, traces = store, Leases(store), Traces(tracer)
        store.records.on_unreadable = lambda kind: metrics.unreadable.labels(kind).inc()
        jobs = HeldJobs(info, Settlement(leases, metrics, traces, RedisOutage(metrics)))
        inference = Inference(triton, Turns(settings.calls_in_flight), metrics, settings.max_batch)
        self.health = Health(inference, jobs)
        uploads = Uploads(metrics, bucket)
        decoder = Decoder(inference, self.health, traces, uploads)
        scheduler = scheduling(settings.max_batch, settings.call_target_ms / 1000)
        stepper = Stepper(scheduler, inference, decoder, self.health, traces)
        registration = Registration(worker_id, info, self.health, Registrations(store), stepper.speed)
        previews = Previews(stepper, leases, settings.preview_every)
        conditions = Conditions(info, tokenizer)
        trials = Trials(stepper, conditions)
        admission = Admission(worker_id, Claims(leases), jobs, conditions, inference, trials, settings)
        self.parts: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "admit": admission.take,
            "try": trials.run,
            "step": stepper.run,
            "decode": decoder.run,
            "upload": uploads.run,
            "preview": previews.run,
            "report": Reporter(jobs, settings).run,
            "watch": self.health.watch,
            "register": registration.run,
            "drain": Drain(admission, registration, settings.drain_s).run,
        }
        self.tasks: list[asyncio.Task[None]] = []

    def stop(self) -> None:
        """Begin to drain: no new jobs; calls in flight end; everything else is handed over."""
        self.health.stop()

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for name, part in self.parts.items():
                    self.tasks.append(group.create_task(part(), name=f"worker {name}"))
        except* Drained:
            log.info("drained")

    def dead_parts(self) -> list[str]:
        """Parts that ended: then the worker ends, too, unless another part does not let itself be cancelled."""
        return [task.get_name() for task in self.tasks if task.done()]
