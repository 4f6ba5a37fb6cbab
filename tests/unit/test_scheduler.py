"""The scheduler: who runs next, with how many evaluations, and that nobody is forgotten."""

import numpy as np
import pytest
from samples import make_parameters

from service.diffusion.plan import Plan
from service.engine.row import Row
from service.engine.scheduler import Scheduler, StepCall, StepTimes


def row(evaluations: int = 8, done: int = 0) -> Row:
    zeros = np.zeros(evaluations, np.int32)
    plan = Plan(zeros, *[zeros] * 11)
    return Row(parameters=make_parameters(), image=0, plan=plan, tokens=np.zeros(4, np.int32), evaluation=done)


def scheduler(max_batch: int = 4, call_target_s: float = 0.1) -> Scheduler[Row]:
    return Scheduler(max_batch, call_target_s)


def start(subject: Scheduler[Row], waiting: int = 0) -> StepCall[Row]:
    call = subject.next_call(waiting)
    assert call is not None
    return call


def finish(subject: Scheduler[Row], call: StepCall[Row], seconds: float = 0.02) -> list[Row]:
    grids = np.stack([r.tokens + call.evaluations for r in call.rows])
    return subject.finish(call, grids, seconds)


def test_rows_at_any_step_share_a_call() -> None:
    subject = scheduler()
    rows = [row(done=0), row(done=5), row(evaluations=3)]
    subject.add(rows)
    assert set(start(subject).rows) == set(rows)


def test_a_new_row_is_in_the_next_call_even_when_more_wait_than_fit() -> None:
    subject = scheduler(max_batch=2)
    subject.add([row() for _ in range(6)])
    running = start(subject)
    new = row()
    subject.add([new])
    finish(subject, running)
    second = subject.next_call(0)
    assert second is not None
    assert new in second.rows


def test_a_call_has_no_more_evaluations_than_somebody_wants() -> None:
    subject = scheduler(call_target_s=1000)
    subject.add([row(evaluations=20)])
    start_and_finish(subject)
    for most, evaluations in ((4, 4), (7, 7), (100, 8)):
        call = subject.next_call(0, most)
        assert call is not None
        assert call.evaluations == evaluations
        finish(subject, call)


def test_rows_take_turns() -> None:
    subject = scheduler(max_batch=2)
    rows = [row() for _ in range(6)]
    subject.add(rows)
    served = [start_and_finish(subject) for _ in range(3)]
    assert {id(r) for call in served for r in call.rows} == {id(r) for r in rows}


def test_the_oldest_go_on_until_they_are_done_but_for_the_first_call_of_new_ones() -> None:
    subject = scheduler(max_batch=2)
    old, new = [row(evaluations=3), row(evaluations=3)], [row(evaluations=3), row(evaluations=3)]
    subject.add(old)
    calls = [start_and_finish(subject)]
    subject.add(new)
    calls += [start_and_finish(subject) for _ in range(5)]
    assert [set(call.rows) for call in calls] == [set(rows) for rows in (old, new, old, old, new, new)]


def test_a_row_that_comes_back_is_a_new_one() -> None:
    subject = scheduler(max_batch=1)
    first, second = row(), row()
    subject.add([first])
    start_and_finish(subject)
    subject.add([second])
    start_and_finish(subject)
    subject.idle.remove(second)
    subject.add([second])
    assert start(subject).rows == (second,)


def test_a_new_row_does_not_wait_for_those_that_run_alone() -> None:
    subject = scheduler(max_batch=2)
    subject.add([row(), row()])
    subject.give_back(start(subject), alone=True)
    new = row()
    subject.add([new])
    assert start_and_finish(subject).rows == (new,)
    assert start(subject).rows[0].alone


def start_and_finish(subject: Scheduler[Row]) -> StepCall[Row]:
    call = start(subject, waiting=1)
    finish(subject, call)
    return call


def test_second_call_only_for_a_full_batch_and_never_a_third() -> None:
    subject = scheduler(max_batch=2)
    subject.add([row(), row(), row()])
    start(subject)
    assert subject.next_call(0) is None, "one idle row waits for the running call"
    subject.add([row() for _ in range(5)])
    start(subject)
    assert subject.next_call(0) is None, "two calls are in flight"


def test_exactly_a_full_batch_is_enough_for_a_second_call() -> None:
    subject = scheduler(max_batch=2)
    subject.add([row() for _ in range(4)])
    assert [len(start(subject).rows) for _ in range(2)] == [2, 2]


def test_k_is_one_until_measured_then_fills_the_target() -> None:
    subject = scheduler(call_target_s=0.1)
    subject.add([row(evaluations=20)])
    first = start(subject)
    assert first.evaluations == 1
    finish(subject, first, seconds=0.02)
    assert start(subject).evaluations == 5


def test_k_comes_nearest_to_the_target_from_both_sides() -> None:
    for seconds, k in ((0.0253, 4), (0.0293, 3)):
        subject = scheduler(call_target_s=0.1)
        subject.add([row(evaluations=20)])
        finish(subject, start(subject), seconds)
        assert start(subject).evaluations == k


def test_k_is_one_while_somebody_waits() -> None:
    subject = scheduler()
    subject.add([row(evaluations=20)])
    finish(subject, start(subject), seconds=0.001)
    call = start(subject, waiting=1)
    assert call.evaluations == 1
    finish(subject, call, seconds=0.001)
    assert start(subject).evaluations > 1


def test_k_never_passes_the_end_of_a_row() -> None:
    subject = scheduler(call_target_s=10)
    subject.add([row(evaluations=9), row(evaluations=3)])
    finish(subject, start(subject), seconds=0.01)
    call = start(subject)
    assert call.evaluations == 2
    done = finish(subject, call)
    assert [len(r.plan) for r in done] == [3]


def test_every_row_runs_exactly_its_evaluations() -> None:
    subject = scheduler(max_batch=3)
    rows = [row(evaluations=n) for n in (1, 2, 5, 9, 16)]
    subject.add(rows)
    done: list[Row] = []
    while len(subject):
        done += finish(subject, start(subject))
    assert {id(r) for r in done} == {id(r) for r in rows}
    assert [int(r.tokens[0]) for r in rows] == [1, 2, 5, 9, 16], "tokens count the evaluations in this test"


def test_given_back_rows_run_again_unchanged_and_alone_if_asked() -> None:
    subject = scheduler()
    rows = [row(), row()]
    subject.add(rows)
    call = start(subject)
    subject.give_back(call, alone=True)
    again = start(subject)
    assert again.rows in [(rows[0],), (rows[1],)]
    assert again.rows[0].evaluation == 0
    finish(subject, again)
    assert not again.rows[0].alone


def test_removed_jobs_do_not_run() -> None:
    subject = scheduler()
    keep, gone = row(), [row(), row()]
    subject.add([gone[0], keep, gone[1]])
    for one in gone:
        one.dropped = True
    assert len(subject) == 1
    assert start(subject).rows == (keep,)


def test_step_times_are_scaled_from_the_nearest_size_measured() -> None:
    times = StepTimes()
    assert times.expect(4) is None
    times.record(4, 0.04)
    assert times.expect(8) == pytest.approx(0.08)
    assert times.expect(2) == pytest.approx(0.04), "a smaller batch may cost as much"
    times.record(4, 0.09)
    assert times.expect(4) == pytest.approx(0.05)
