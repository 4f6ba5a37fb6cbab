"""Jobs that may be adapted: fewer evaluations for one that would miss its deadline otherwise.

Decided once, before its first evaluation, and kept in the job's record: whoever goes on with it has the same plan.
"""

import logging
from dataclasses import replace

from service.diffusion.fewer import changes, fewer
from service.diffusion.samplers import effort_of
from service.engine.forecast import Forecast
from service.engine.inference import Pace
from service.engine.scheduler import Scheduler
from service.errors import RedisUnavailable, StaleEpoch
from service.messages import Parameters
from service.triton.contract import IMAGE_DECODER, IMAGE_ENCODER, STEP, TEXT_ENCODER
from service.worker.job import HeldJob, JobRow
from service.worker.jobs import HeldJobs
from service.worker.settlement import ids_of

log = logging.getLogger(__name__)


class BrownOut:
    def __init__(self, jobs: HeldJobs, scheduler: Scheduler[JobRow], pace: Pace) -> None:
        self.jobs, self.scheduler, self.pace = jobs, scheduler, pace

    async def fit(self, job: HeldJob) -> bool:
        """Adapt a job that has rows, if it may and must be → whether it is still ours."""
        if used := self.choose(job):
            await self.adapt(job, used)
        return job.held

    def choose(self, job: HeldJob) -> Parameters | None:
        """What it is to be made with in place of what was asked for; None where that can stay."""
        wanted, asked = job.lease.job, max(len(row.plan) for row in job.rows)
        # Once evaluations were announced, by whatever worker, their number is a promise.
        if not wanted.adapt or not asked or job.lease.checkpoint or job.lease.evaluation:
            return None
        forecast = self.forecast(job)
        if forecast is None or (most := forecast.most(asked, job.left_s)) == asked:
            return None
        used = fewer(wanted.parameters, most, job.info, job.masked)
        return used if self.evaluations(job, used) < self.evaluations(job, wanted.parameters) else None

    def forecast(self, job: HeldJob) -> Forecast | None:
        """None as long as nothing is known of Triton's pace."""
        rows = [row for other in self.jobs for row in other.rows if row.remaining]  # the oldest job's first
        size = self.scheduler.max_batch
        carried = min(len(rows), size)
        evaluation_s = self.scheduler.times.expect(carried) or carried * self.pace.row_s.get(STEP, 0)
        if not evaluation_s:
            return None
        mine, urgent, crowded = rows.index(job.rows[0]), job.rows[0].urgent, len(rows) > size
        ahead = [
            row.remaining
            for place, row in enumerate(rows)
            if row.job is not job and (row.urgent > urgent or (row.urgent is urgent and place < mine))
        ]
        row_s = self.pace.row_s
        return Forecast(
            rows=len(job.rows),
            max_batch=size,
            evaluation_s=evaluation_s,
            around_s=self.scheduler.under_way_s
            + row_s.get(TEXT_ENCODER.name, 0)
            + (0 if job.original is None else row_s.get(IMAGE_ENCODER.name, 0))
            + len(job.rows) * row_s.get(IMAGE_DECODER.name, 0),
            ahead=ahead,
            yields=crowded and urgent and not all(row.urgent for row in rows),
        )

    def evaluations(self, job: HeldJob, parameters: Parameters) -> int:
        return effort_of(parameters, job.info.tokens, job.info.timesteps, job.masked).evaluations

    async def adapt(self, job: HeldJob, used: Parameters) -> None:
        """Write it down, and only then run it. Without Redis nobody knows what it says: the job is left to be found."""
        leases, asked = job.settlement.leases, job.lease.job
        lease = replace(job.lease, job=asked.model_copy(update={"parameters": used, "adapt": False}))
        evaluations = self.evaluations(job, used)
        async with job.lock:
            if not job.held:
                return
            try:
                await leases.adapt(lease, evaluations, changes(asked.parameters, used))
            except StaleEpoch as error:
                job.lose(error)
                return
            except RedisUnavailable as error:
                job.leave()
                await job.settlement.outage.wait(error)
                return
            job.lease = lease
            job.make_rows()
        self.jobs.metrics.adapted_jobs.inc()
        with ids_of(lease):
            facts = {"evaluations": evaluations, "asked": self.evaluations(job, asked.parameters)}
            log.info("fewer evaluations, to meet the deadline", extra={"fields": facts})
