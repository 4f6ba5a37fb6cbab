"""Pinned codes come out unchanged: from the step itself, with any sampler, mask and strength, resumed or not."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peers.random_models import TEXT_POSITIONS, TINY, random_step, run
from unit.test_start import request

from service.diffusion.samplers import SAMPLERS, make_plan
from service.diffusion.start import FREE, masked_at_first, pack_positions
from service.engine.batch import make_batch
from service.engine.row import Row, masked
from service.messages import Edit, Parameters
from service.triton.contract import Int32

TOKENS, CODES, TIMESTEPS = TINY.tokens, TINY.codes, TINY.num_embeds_ada_norm
STEP = random_step(TINY)
generator = np.random.default_rng(0)
CONDITIONS = tuple(
    generator.standard_normal((TEXT_POSITIONS, TINY.cross_attention_dim)).astype(np.float16) for _ in range(2)
)
grids = st.lists(st.integers(0, CODES - 1), min_size=TOKENS, max_size=TOKENS).map(lambda g: np.array(g, np.int32))
masks = st.lists(st.booleans(), min_size=TOKENS, max_size=TOKENS).map(np.array)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def begun(wanted: Parameters, edit: Edit, read: Int32, grid: Int32 | None = None, evaluation: int = 0) -> Row:
    """A row as a worker makes it, or as the next one does from a checkpoint."""
    plan = make_plan(wanted, TOKENS, TIMESTEPS, 0, masked_at_first(edit, TOKENS))
    row = Row(parameters=wanted, image=0, plan=plan, tokens=masked(TOKENS, CODES) if grid is None else grid.copy())
    row.evaluation, row.conditions = evaluation, CONDITIONS
    row.begin(edit, read, CODES)
    return row


def advance(row: Row, evaluations: int) -> None:
    if evaluations:
        batch = {
            name: torch.from_numpy(np.array(array)) for name, array in make_batch([row], evaluations).arrays().items()
        }
        row.advance(run(STEP, batch)[0].numpy()[0], evaluations)


@given(
    st.sampled_from([*SAMPLERS]),
    masks,
    grids,
    st.floats(0, 1),
    st.booleans(),
    st.integers(0, 2**53 - 1),
    st.floats(0, 1),
)
@settings(deadline=None, max_examples=120, database=None, derandomize=True)
def test_pinned_codes_come_out_unchanged(
    sampler: str, mask: Int32, read: Int32, strength: float, resample: bool, seed: int, cut: float
) -> None:
    edit = Edit(strength=strength, changes=pack_positions(mask), image_sha256="ab")
    wanted = request(sampler, 5, 3, seed=seed, final_resample=resample)
    whole = begun(wanted, edit, read)
    first = whole.tokens.copy()
    advance(whole, whole.remaining)
    assert (whole.tokens[~mask] == read[~mask]).all()
    assert (whole.tokens < CODES).all()
    if not len(whole.plan):
        assert (whole.tokens == read).all()

    begins = begun(wanted, edit, read)
    assert (begins.tokens == first).all()
    advance(begins, round(cut * begins.remaining))
    # Another device may read the picture in other codes: what is pinned stands in the checkpoint.
    other = np.where(begins.evaluation > 0, (read + 1) % CODES, read).astype(np.int32)
    resumed = begun(wanted, edit, other, begins.tokens, begins.evaluation)
    assert ((resumed.pinned == FREE) == mask).all()
    advance(resumed, resumed.remaining)
    assert (resumed.tokens == whole.tokens).all()
