"""Rows to the tensors of one ``diffusion_step`` call."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from service.diffusion.noise import uniforms
from service.diffusion.plan import PER_IMAGE, Plan
from service.diffusion.start import FREE
from service.engine.row import Row
from service.messages import PurityForm
from service.triton.contract import Array, Float32, StepBatch

FORMS = {PurityForm.LINEAR: 0, PurityForm.POWER: 1}
"""The step's ``purity_form``."""


def make_batch(rows: Sequence[Row], evaluations: int) -> StepBatch:
    """The next ``evaluations`` of every row."""
    tokens = np.stack([row.tokens for row in rows])
    planned = {field.name: np.stack([part_of(row, field.name, evaluations) for row in rows]) for field in fields(Plan)}
    weights = planned.pop("weights")
    # As many conditions as somebody here gives a weight: the null of nobody need not be sent.
    conditions = max(1, int(np.flatnonzero(weights.any((0, 1))).max()) + 1)
    return StepBatch(
        tokens=tokens,
        pinned=np.stack([np.full_like(row.tokens, FREE) if row.pinned is None else row.pinned for row in rows]),
        **planned,
        weights=weights[:, :, :conditions],
        purity_form=np.array([[FORMS[row.parameters.purity_form]] for row in rows], np.int32),
        uniforms=noise(rows, evaluations),
        **conditions_of(rows, conditions),
    )


def part_of(row: Row, name: str, evaluations: int) -> Array:
    whole: Array = getattr(row.plan, name)
    return whole if name in PER_IMAGE else whole[row.evaluation : row.evaluation + evaluations]


def noise(rows: Sequence[Row], evaluations: int) -> Float32:
    each = [uniforms(row.parameters.seed, row.image, row.evaluation, evaluations, len(row.tokens)) for row in rows]
    return np.stack(each)


def conditions_of(rows: Sequence[Row], count: int) -> dict[str, Array]:
    """The first ``count`` conditions of every row [B, C, …], under the name that the kind of model has for them."""
    given = [row.conditions for row in rows]
    assert None not in given, "rows are scheduled after their prompts are encoded"
    if not given[0]:
        return {}
    stacked = np.stack([np.stack(conditions[:count]) for conditions in given if conditions])
    return {"labels" if stacked.ndim == 2 else "contexts": stacked}
