"""How long a job takes beside others, and how many evaluations there is time for."""

import numpy as np
import pytest
from samples import make_parameters

from service.diffusion.plan import Plan
from service.engine.forecast import LEAST_SHARE, MARGIN, Forecast
from service.engine.row import Row
from service.engine.scheduler import PATIENT_FIRST_EVERY, Scheduler

BATCH = 4


def forecast(rows: int = 1, ahead: tuple[int, ...] = (), yields: bool = False, around_s: float = 0.0) -> Forecast:
    return Forecast(rows=rows, max_batch=BATCH, evaluation_s=0.5, around_s=around_s, ahead=ahead, yields=yields)


def test_alone_it_takes_a_call_for_each_evaluation() -> None:
    assert forecast().calls(8) == forecast(rows=BATCH).calls(8) == 8
    assert forecast(around_s=2).seconds(8) == 2 + 8 * 0.5


def test_more_pictures_than_a_call_carries_take_turns() -> None:
    assert forecast(rows=2 * BATCH).calls(8) == 16


def test_others_cost_nothing_while_the_call_has_room_however_long_they_are() -> None:
    assert forecast(ahead=(1000,) * (BATCH - 1)).calls(8) == 8


def test_who_goes_before_is_waited_for_when_the_call_is_full() -> None:
    assert forecast(ahead=(8,) * BATCH).calls(8) == 1 + 8 + 7, "it is in the next call, and then when the first is done"
    assert forecast(ahead=(8,) * 10 * BATCH).calls(8) == 1 + 80 + 7
    assert forecast(ahead=(8,) * 10 * BATCH).calls(1) == 1


def test_who_gives_way_to_patient_ones_takes_longer() -> None:
    assert forecast(yields=True).seconds(6) == pytest.approx(0.5 * 6 * PATIENT_FIRST_EVERY / (PATIENT_FIRST_EVERY - 1))


def test_what_is_left_decides_how_many_there_are() -> None:
    assert forecast().most(16, left_s=float("inf")) == 16
    assert forecast().most(16, left_s=16 * 0.5 * MARGIN) == 16
    assert forecast().most(16, left_s=16 * 0.5 * MARGIN - 0.001) == 15
    assert forecast().most(16, left_s=6.5 * 0.5 * MARGIN) == 6
    assert forecast(around_s=1.0).most(16, left_s=6.5 * 0.5 * MARGIN) == 4


@pytest.mark.parametrize("left_s", [0.01, 0.0, -5.0])
@pytest.mark.parametrize(("asked", "least"), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (16, 4), (17, 5)])
def test_a_picture_keeps_a_quarter_however_late_it_is(asked: int, least: int, left_s: float) -> None:
    assert forecast().most(asked, left_s) == least == -(-asked // LEAST_SHARE)


@pytest.mark.parametrize("seed", range(50))
def test_it_says_about_what_the_scheduler_then_does(seed: int) -> None:
    """Rows of many lengths that have all begun, and then ours."""
    draw = np.random.default_rng(seed)
    others = [row(int(left)) for left in draw.integers(4, 24, size=draw.integers(0, 3 * BATCH))]
    mine, evaluations = int(draw.integers(1, BATCH + 1)), int(draw.integers(1, 12))
    scheduler: Scheduler[Row] = Scheduler(BATCH, call_target_s=0)
    scheduler.add(others)
    while not all(one.begun for one in others):
        run_call(scheduler)
    left = tuple(one.remaining for one in others if one.remaining)
    ours = [row(evaluations) for _ in range(mine)]
    scheduler.add(ours)
    calls = 0
    while any(one.remaining for one in ours):
        run_call(scheduler)
        calls += 1
    said = forecast(rows=mine, ahead=left).calls(evaluations)
    assert calls <= said <= calls + 1, "its first call may have had room for some of those"


def run_call(scheduler: Scheduler[Row]) -> None:
    call = scheduler.next_call(0)
    assert call is not None
    scheduler.finish(call, np.zeros((len(call.rows), 4), np.int32), 0.1)


def row(evaluations: int) -> Row:
    zeros = np.zeros(evaluations, np.int32)
    return Row(parameters=make_parameters(), image=0, plan=Plan(zeros, *[zeros] * 11), tokens=np.zeros(4, np.int32))
