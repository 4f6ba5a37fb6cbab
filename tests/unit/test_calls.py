"""Calls of several evaluations, and calls that fail: what the scheduler learns and keeps from them."""

import numpy as np
from samples import make_parameters

from service.diffusion.plan import Plan
from service.engine.row import Row
from service.engine.scheduler import Scheduler, StepCall


def row(evaluations: int = 40) -> Row:
    zeros = np.zeros(evaluations, np.int32)
    plan = Plan(zeros, *[zeros] * 11)
    return Row(parameters=make_parameters(), image=0, plan=plan, tokens=np.zeros(4, np.int32))


def start(subject: Scheduler[Row]) -> StepCall[Row]:
    call = subject.next_call(0)
    assert call is not None
    return call


def finish(subject: Scheduler[Row], call: StepCall[Row], seconds: float) -> None:
    subject.finish(call, np.stack([r.tokens for r in call.rows]), seconds)


def test_the_time_of_an_evaluation_is_its_calls_by_its_evaluations() -> None:
    """A call of five that takes five times as long says nothing new: the next has five as well."""
    subject: Scheduler[Row] = Scheduler(max_batch=4, call_target_s=0.1)
    subject.add([row()])
    for evaluations in (1, 5, 5, 5):
        call = start(subject)
        assert call.evaluations == evaluations
        finish(subject, call, seconds=0.02 * evaluations)


def test_rows_of_a_failed_call_keep_their_order_in_front_of_the_others() -> None:
    subject: Scheduler[Row] = Scheduler(max_batch=3, call_target_s=0.1)
    subject.add([row() for _ in range(4)])
    call = start(subject)
    subject.give_back(call)
    assert start(subject).rows == call.rows


def test_urgent_rows_go_first_but_in_one_call_of_four() -> None:
    """Promise 14 within a worker: more of either class than a call carries."""
    subject: Scheduler[Row] = Scheduler(max_batch=2, call_target_s=0.1)
    rows = [row() for _ in range(6)]
    for patient in rows[::2]:
        patient.urgent = False
    subject.add(rows)
    order = []
    for _ in range(8):
        call = start(subject)
        order.append([carried.urgent for carried in call.rows])
        finish(subject, call, seconds=0.1)
    urgent, patient_ones = [True, True], [False, False]
    assert order == [urgent, urgent, urgent, patient_ones] * 2
