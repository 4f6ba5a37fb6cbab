"""What a job's pictures are conditioned on, by the kind of model."""

import numpy as np
import pytest
from samples import make_info, make_parameters

from service.condition import Condition
from service.engine.conditions import Conditions
from service.errors import InvalidRequest
from service.messages import Job, Priority


def job(label: int | None = None) -> Job:
    return Job(
        id="a",
        model="m",
        prompt="",
        negative_prompt=None,
        parameters=make_parameters(),
        priority=Priority.BATCH,
        label=label,
    )


def of(condition: Condition) -> Conditions:
    return Conditions(make_info(condition=condition, classes=5 if condition is Condition.LABEL else 0), None)


def test_a_class_and_the_null_behind_the_last() -> None:
    conditions = of(Condition.LABEL)
    assert conditions.texts(job(3)) == ()
    assert [(one.dtype, one.tolist()) for one in conditions.of(job(3), [])] == [(np.int32, 3), (np.int32, 5)]


@pytest.mark.parametrize("label", [None, -1, 5])
def test_a_label_that_the_model_does_not_have_is_never_drawn(label: int | None) -> None:
    """Also from a gateway that knew another model of this name."""
    with pytest.raises(InvalidRequest, match="from 0 to 4") as raised:
        of(Condition.LABEL).texts(job(label))
    assert raised.value.field == "label"


def test_nothing_to_be_conditioned_on() -> None:
    conditions = of(Condition.NONE)
    assert (conditions.texts(job()), conditions.of(job(), [])) == ((), ())
