"""How a worker decides that a job gets fewer evaluations, and keeps it: a real Redis, the shipped fake of Triton."""

import json
import math

import pytest
import test_worker_jobs as worker_jobs
from both_sides import JobQueue
from gateway_harness import MODEL
from queue_support import LossyProxy, eventually, opened, progress_event
from samples import make_parameters
from test_worker_jobs import count

from service.engine.inference import Pace
from service.engine.scheduler import Scheduler
from service.messages import Job, Parameters, Priority, Status
from service.queue import keys
from service.queue.scripts import ADAPT
from service.triton.contract import IMAGE_DECODER, STEP, TEXT_ENCODER
from service.worker.brownout import BrownOut
from service.worker.job import HeldJob, JobRow, State
from service.worker.jobs import HeldJobs

pytestmark = pytest.mark.anyio

jobs, queue = worker_jobs.jobs, worker_jobs.queue
BATCH = 4
ROW_S = {TEXT_ENCODER.name: 1.0, STEP: 2.0, IMAGE_DECODER.name: 3.0}


@pytest.fixture
def brownout(jobs: HeldJobs) -> BrownOut:
    """It knows of Triton what the first check took, and has done no step call yet."""
    scheduler: Scheduler[JobRow] = Scheduler(BATCH, call_target_s=1)
    return BrownOut(jobs, scheduler, Pace(dict(ROW_S)))


def make_job(
    job_id: str = "one",
    deadline_s: float | None = 20.0,
    adapt: bool = True,
    priority: Priority = Priority.INTERACTIVE,
    **parameters: object,
) -> Job:
    return Job(
        id=job_id,
        model=MODEL.name,
        prompt="a",
        negative_prompt=None,
        parameters=make_parameters(**{"steps": 16, "tokens_per_step": 4, **parameters}),
        priority=priority,
        deadline_ms=None if deadline_s is None else round(deadline_s * 1000),
        adapt=adapt,
    )


async def claim(jobs: HeldJobs, queue: JobQueue, wanted: Job) -> HeldJob:
    """A job with rows, as ``BrownOut`` gets it."""
    await queue.enqueue(wanted, 16)
    [lease] = await queue.take(MODEL.name, "worker", 16, 0)
    job = jobs.claim(lease)
    job.enter(State.ENCODING)
    job.make_rows()
    return job


async def test_a_job_that_would_be_late_gets_what_there_is_time_for(
    jobs: HeldJobs, queue: JobQueue, brownout: BrownOut
) -> None:
    """20 s less a margin are 16: one to encode, three to decode, and two for each evaluation."""
    job = await claim(jobs, queue, make_job())
    assert await brownout.fit(job)
    used, [row], view = job.lease.job.parameters, job.rows, await queue.view("one")
    assert len(row.plan) in (5, 6), "six, unless this took a while"
    assert (used.steps, used.tokens_per_step) == (len(row.plan), math.ceil(64 / len(row.plan)))
    assert row.parameters == used == view.job.parameters
    assert view.evaluations == len(row.plan) == job.event().evaluations
    assert count(jobs, "vqd_adapted_jobs_total") == 1
    assert await brownout.fit(job)
    assert job.lease.job.parameters == used, "it is decided once"
    assert count(jobs, "vqd_adapted_jobs_total") == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"adapt": False},
        {"deadline_s": None},
        {"deadline_s": 60.0},
        {"guidance_schedule": (2.0,) * 16},
        {"steps": 1, "tokens_per_step": 64},
    ],
)
async def test_others_keep_what_was_asked_for(
    jobs: HeldJobs, queue: JobQueue, brownout: BrownOut, changed: dict[str, object]
) -> None:
    wanted = make_job(**changed)  # type: ignore[arg-type]
    job = await claim(jobs, queue, wanted)
    assert await brownout.fit(job)
    assert job.lease.job.parameters == wanted.parameters
    assert not await queue.redis.hexists(keys.job("one"), "changes")


async def test_without_any_measurement_nothing_is_decided(jobs: HeldJobs, queue: JobQueue, brownout: BrownOut) -> None:
    del brownout.pace.row_s[STEP]
    job = await claim(jobs, queue, make_job(deadline_s=4))
    assert await brownout.fit(job)
    assert job.lease.job.adapt


async def test_what_was_measured_counts_more_than_the_first_check(
    jobs: HeldJobs, queue: JobQueue, brownout: BrownOut
) -> None:
    brownout.scheduler.times.record(1, 0.5)
    job = await claim(jobs, queue, make_job())
    assert await brownout.fit(job)
    assert len(job.rows[0].plan) == 16


async def test_evaluations_that_were_announced_are_a_promise(
    jobs: HeldJobs, queue: JobQueue, brownout: BrownOut
) -> None:
    """The worker that began it had more time, and was lost before its first checkpoint."""
    first = await claim(jobs, queue, make_job())
    await queue.progress(first.lease, progress_event(1), None)
    await first.release()
    [lease] = await queue.take(MODEL.name, "worker", 16, 0)
    job = jobs.claim(lease)
    job.enter(State.ENCODING)
    job.make_rows()
    assert await brownout.fit(job)
    assert len(job.rows[0].plan) == 16


async def test_who_shares_the_worker_is_reckoned_with(jobs: HeldJobs, queue: JobQueue, brownout: BrownOut) -> None:
    """Those that came before, of its own class or a more urgent one, keep their places; all make the call large."""
    await claim(jobs, queue, make_job("older", n=2, adapt=False))
    await claim(jobs, queue, make_job("patient", n=2, priority=Priority.BATCH, steps=8, tokens_per_step=8))
    one = await claim(jobs, queue, make_job("one"))
    patient = await claim(jobs, queue, make_job("late", priority=Priority.BATCH))
    await claim(jobs, queue, make_job("newer", steps=32))
    brownout.scheduler.times.record(BATCH, 7.0)
    urgent, late = brownout.forecast(one), brownout.forecast(patient)
    assert urgent is not None
    assert late is not None
    assert (urgent.ahead, urgent.yields, urgent.evaluation_s) == ([16, 16], True, 7.0)
    assert (late.ahead, late.yields) == ([16, 16, 8, 8, 16, 32], False)
    assert urgent.around_s == ROW_S[TEXT_ENCODER.name] + ROW_S[IMAGE_DECODER.name]


async def test_what_is_done_makes_no_call_larger(jobs: HeldJobs, queue: JobQueue, brownout: BrownOut) -> None:
    done = await claim(jobs, queue, make_job("done", n=4))
    for row in done.rows:
        row.advance(row.tokens, 16)
    forecast = brownout.forecast(await claim(jobs, queue, make_job("one")))
    assert forecast is not None
    assert (forecast.evaluation_s, forecast.ahead, forecast.yields) == (ROW_S[STEP], [], False)


def older(record: str) -> Job:
    """As a worker of the version before reads it, which refuses what it does not know."""
    written = {name for name, field in Job.model_fields.items() if not (field.exclude or field.exclude_if)}
    assert set(json.loads(record)) == written
    return Job.model_validate_json(record, extra="forbid")


async def record_of(queue: JobQueue, job_id: str) -> str:
    return str((await queue.redis.hget(keys.job(job_id), "job") or b"").decode())


async def test_a_worker_of_the_version_before_reads_all_but_what_it_would_not_heed(
    jobs: HeldJobs, queue: JobQueue, brownout: BrownOut
) -> None:
    """A job without the wish, and one that was adapted already: it goes on with that one's plan."""
    await claim(jobs, queue, make_job("plain", adapt=False))
    assert older(await record_of(queue, "plain")).parameters.steps == 16
    job = await claim(jobs, queue, make_job("one"))
    assert json.loads(await record_of(queue, "one"))["adapt"] is True
    await brownout.fit(job)
    assert older(await record_of(queue, "one")).parameters == job.lease.job.parameters != make_job().parameters


async def test_the_plan_is_kept_by_whoever_takes_it_next(jobs: HeldJobs, queue: JobQueue, brownout: BrownOut) -> None:
    job = await claim(jobs, queue, make_job())
    await brownout.fit(job)
    used = job.lease.job.parameters
    await job.release()
    [lease] = await queue.take(MODEL.name, "worker", 16, 0)
    assert (lease.job.parameters, lease.job.adapt, lease.evaluation) == (used, False, 0)
    assert lease.job.created_ms == job.lease.job.created_ms


async def test_a_job_that_is_another_workers_by_now_is_not_touched(
    jobs: HeldJobs, queue: JobQueue, brownout: BrownOut
) -> None:
    job = await claim(jobs, queue, make_job())
    await queue.redis.hincrby(keys.job("one"), "epoch", 1)
    assert not await brownout.fit(job)
    assert job.state is State.GONE
    assert (await queue.view("one")).job.parameters == make_job().parameters
    assert count(jobs, "vqd_fenced_writes_total") == 1
    assert count(jobs, "vqd_adapted_jobs_total") == 0


async def test_a_job_that_is_late_by_then_has_failed(jobs: HeldJobs, queue: JobQueue, brownout: BrownOut) -> None:
    job = await claim(jobs, queue, make_job(deadline_s=1.0))
    await queue.redis.hset(keys.job("one"), "deadline_at_ms", 1)
    assert not await brownout.fit(job)
    view = await queue.view("one")
    assert (view.status, view.failure and view.failure.kind) == (Status.FAILED, "deadline-passed")
    assert count(jobs, "vqd_jobs_total", outcome="failed") == 1


@pytest.mark.parametrize("lost", [1, 3])
async def test_a_lost_reply_leaves_no_doubt_about_the_plan(redis_url: str, lost: int) -> None:
    """It was carried out. Asked again, it is answered as before; and if nothing answers, the job is found again."""
    async with LossyProxy(redis_url) as proxy, opened(proxy.url, lease_ms=100) as queue:
        metrics = worker_jobs.WorkerMetrics(worker_jobs.CollectorRegistry())
        settlement = worker_jobs.Settlement(
            queue, metrics, worker_jobs.Traces(worker_jobs.Tracer()), worker_jobs.RedisOutage(metrics)
        )
        jobs = HeldJobs(MODEL, settlement)
        brownout = BrownOut(jobs, Scheduler(BATCH, call_target_s=1), Pace(dict(ROW_S)))
        job = await claim(jobs, queue, make_job())
        await queue.redis.script_load(queue.store.scripts[ADAPT].script)
        proxy.lose_reply(queue.store.scripts[ADAPT].sha.encode(), times=lost)
        assert await brownout.fit(job) == (lost == 1)
        assert proxy.lost == lost
        used = await kept(queue)
        assert used != make_job().parameters
        if lost == 1:
            assert job.lease.job.parameters == used
            return
        assert (job.state, list(jobs)) == (State.GONE, [])

        async def found() -> bool:
            leases = await queue.recover(MODEL.name, "worker", 16)
            return [lease.job.parameters for lease in leases] == [used]

        await eventually(found)


async def kept(queue: JobQueue) -> Parameters:
    return (await queue.view("one")).job.parameters
