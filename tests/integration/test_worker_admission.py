"""How a worker begins jobs, and how it leaves them to others at its end: a real Redis, the shipped fake of Triton."""

import asyncio
from pathlib import Path

import pytest
import test_worker_jobs as worker_jobs
from both_sides import JobQueue
from fleet import write_repository
from gateway_harness import MODEL
from queue_support import eventually
from samples import make_parameters
from test_worker_jobs import claim, run

from service.engine.conditions import Conditions
from service.messages import Job, Priority, Status
from service.settings import Settings
from service.testing.fake_triton import FakeTriton
from service.triton.repository import read_repository
from service.worker.admission import Admission
from service.worker.drain import Drain, Drained
from service.worker.health import Registration
from service.worker.jobs import HeldJobs
from service.worker.stepper import Stepper
from service.worker.trials import Trials

pytestmark = pytest.mark.anyio

jobs, fake, stepper, queue = worker_jobs.jobs, worker_jobs.fake, worker_jobs.stepper, worker_jobs.queue


@pytest.fixture
def admission(jobs: HeldJobs, queue: JobQueue, stepper: Stepper, tmp_path: Path) -> Admission:
    write_repository(tmp_path)
    conditions = Conditions(*read_repository(tmp_path))
    trials = Trials(stepper, conditions)
    return Admission("worker", queue.claims, jobs, conditions, stepper.inference, trials, Settings())


async def test_calls_are_kept_short_only_as_long_as_prompts_are_encoded(
    queue: JobQueue, stepper: Stepper, admission: Admission
) -> None:
    """The first call finds out how long one evaluation takes; with a target of a second the next does all the rest."""
    parameters = make_parameters(steps=4, tokens_per_step=16)
    fields = {"id": "one", "model": MODEL.name, "prompt": "red circle", "parameters": parameters}
    await queue.enqueue(Job.model_validate({**fields, "negative_prompt": None, "priority": Priority.INTERACTIVE}), 4)
    await stepper.health.check()
    await admission.admit()
    first = await stepper.schedule()
    await stepper.run_call(first)
    assert (first.evaluations, (await stepper.schedule()).evaluations) == (1, 3)


async def test_who_comes_while_a_turn_is_awaited_is_encoded_with_the_first(
    queue: JobQueue, jobs: HeldJobs, stepper: Stepper, admission: Admission, fake: FakeTriton
) -> None:
    """A step call is under way; the first has been claimed and waits for its end when the second comes."""
    await stepper.health.check()
    await stepper.inference.turns.take()
    fields = {"model": MODEL.name, "negative_prompt": None, "priority": Priority.INTERACTIVE}
    fields["parameters"] = make_parameters()
    first, second = (Job.model_validate({**fields, "id": name, "prompt": f"{name} circle"}) for name in "ab")
    await queue.enqueue(first, 4)
    admitting = asyncio.create_task(admission.admit())
    await eventually(lambda: is_held(jobs))
    await queue.enqueue(second, 4)
    stepper.inference.turns.give_back()
    await admitting
    # A check; two prompts and the null.
    assert [call.rows for call in fake.calls if call.model == "text_encoder"] == [1, 3]
    assert {row.job.id for row in (await stepper.schedule()).rows} == {"a", "b"}


async def is_held(jobs: HeldJobs) -> bool:
    return bool(jobs.rows)


async def test_a_job_that_is_claimed_when_triton_has_gone_is_handed_over_at_once(
    queue: JobQueue, jobs: HeldJobs, stepper: Stepper, admission: Admission
) -> None:
    """Its states may be known, and then nothing would ask Triton: the worker would hold it and not run it."""
    await stepper.health.check()
    admitting = asyncio.create_task(admission.admit())
    await asyncio.sleep(0)  # it has looked at the worker's health, and looks at the queue
    stepper.health.mark_unready("gone")
    fields = {"model": MODEL.name, "prompt": "a", "negative_prompt": None, "priority": Priority.INTERACTIVE}
    await queue.enqueue(Job.model_validate({**fields, "id": "one", "parameters": make_parameters()}), 4)
    await admitting
    view = await queue.view("one")
    assert (view.status, view.epoch, jobs.rows) == (Status.QUEUED, 1, 0)


async def test_a_drain_leaves_a_call_behind_that_is_known_to_take_longer(
    jobs: HeldJobs, queue: JobQueue, stepper: Stepper, admission: Admission, fake: FakeTriton
) -> None:
    """Half of its time is for what is under way, the other half to hand over what did not end."""
    await stepper.health.check()
    stepper.add((await run(await claim(jobs, queue))).rows)
    stepper.scheduler.times.record(1, 60.0)
    fake.hang()
    calling = asyncio.create_task(stepper.run_call(await stepper.schedule()))
    stepper.health.stop()
    with pytest.raises(Drained):
        await Drain(admission, Registration("worker", MODEL, stepper.health, queue), limit_s=1.0).run()
    assert (await queue.view("one")).status is Status.QUEUED
    fake.resume()
    await calling
