"""Rows to the tensors of one ``diffusion_step`` call."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.diffusion.noise import uniforms
from service.diffusion.samplers import SAMPLERS
from service.engine.row import Row
from service.messages import PurityForm
from service.triton.contract import Float16, StepBatch

Scalar = TypeVar("Scalar", bound=np.generic)
FORMS = {PurityForm.LINEAR: 0, PurityForm.POWER: 1}
"""The step's ``purity_form``."""


def make_batch(rows: Sequence[Row], evaluations: int) -> StepBatch:
    """The next ``evaluations`` of every row."""
    spans = [(row.plan, slice(row.evaluation, row.evaluation + evaluations)) for row in rows]
    wanted = [row.parameters for row in rows]
    tokens = np.stack([row.tokens for row in rows])

    def scalars(values: Sequence[float], dtype: type[Scalar]) -> NDArray[Scalar]:
        return np.array(values, dtype)[:, None]

    return StepBatch(
        tokens=tokens,
        pinned=np.full_like(tokens, -1),
        context=np.stack([states_of(row)[0] for row in rows]),
        null_context=np.stack([states_of(row)[1] for row in rows]),
        timestep=np.stack([plan.timestep[span] for plan, span in spans]),
        timestep_next=np.stack([plan.timestep_next[span] for plan, span in spans]),
        reveal=np.stack([plan.reveal[span] for plan, span in spans]),
        guidance=np.stack([plan.guidance[span] for plan, span in spans]),
        selection=scalars([SAMPLERS[p.sampler].selection for p in wanted], np.int32),
        purity_r=scalars([p.purity_r for p in wanted], np.float32),
        temperature=scalars([p.temperature for p in wanted], np.float32),
        truncation=scalars([p.truncation_rate for p in wanted], np.float32),
        purity_form=scalars([FORMS[p.purity_form] for p in wanted], np.int32),
        uniforms=np.stack(
            [uniforms(row.parameters.seed, row.image, row.evaluation, evaluations, len(row.tokens)) for row in rows]
        ),
    )


def states_of(row: Row) -> tuple[Float16, Float16]:
    assert row.states is not None, "rows are scheduled after their prompts are encoded"
    return row.states
