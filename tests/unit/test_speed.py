"""What a worker says of its speed."""

import numpy as np
import pytest
from samples import make_parameters

from service.diffusion.samplers import make_plan
from service.engine.batch import make_batch
from service.engine.row import Row, masked
from service.engine.scheduler import StepTimes
from service.engine.speed import Speed
from service.triton.contract import StepBatch


def batch_of(*scales: float) -> StepBatch:
    """One evaluation of a picture for each guidance scale."""
    conditions = (np.zeros((2, 3), np.float16),) * 2
    rows = []
    for scale in scales:
        wanted = make_parameters(guidance_scale=scale)
        rows.append(
            Row(
                parameters=wanted,
                image=0,
                plan=make_plan(wanted, 16, 100, 0),
                tokens=masked(16, 8),
                conditions=conditions,
            )
        )
    return make_batch(rows, 1)


def test_nothing_is_said_before_anything_was_measured() -> None:
    times = StepTimes()
    speed = Speed(times, max_batch=8)
    assert speed.passes_per_s is None
    speed.record(batch_of(1.0))
    assert speed.passes_per_s is None
    times.record(8, 2.0)
    assert speed.passes_per_s == 4


def test_guided_pictures_take_two_passes() -> None:
    times = StepTimes()
    times.record(2, 0.5)
    speed = Speed(times, max_batch=2)
    speed.record(batch_of(3.0, 3.0))
    assert speed.passes_per_s == 8
    for _ in range(50):
        speed.record(batch_of(3.0, 1.0))
    assert speed.passes_per_s == pytest.approx(6, rel=1e-3)


def test_one_call_that_is_unlike_the_others_changes_little() -> None:
    times = StepTimes()
    times.record(2, 0.5)
    speed = Speed(times, max_batch=2)
    speed.record(batch_of(3.0, 3.0))
    speed.record(batch_of(1.0, 1.0))
    assert speed.passes_per_s == pytest.approx(0.8 * 8 + 0.2 * 4)


def test_small_calls_stand_for_large_ones_in_proportion() -> None:
    times = StepTimes()
    times.record(1, 0.1)
    speed = Speed(times, max_batch=8)
    speed.record(batch_of(1.0))
    assert speed.passes_per_s == pytest.approx(10)
