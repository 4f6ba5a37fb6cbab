"""What an edited picture begins with: with any sampler, mask and strength the plan counts what is masked."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import make_parameters

from service.diffusion.plan import ANCESTRAL
from service.diffusion.samplers import SAMPLERS, effort_of, make_plan
from service.diffusion.start import FREE, masked_at_first, pack_positions, start_of, unpack_positions
from service.messages import Edit, Job, Parameters, Priority

TOKENS, CODES, TIMESTEPS = 16, 10, 100
READ = np.arange(TOKENS, dtype=np.int32) % CODES
PROPERTY = settings(deadline=None, max_examples=200, database=None, derandomize=True)
edits = st.builds(
    Edit,
    strength=st.floats(0, 1),
    changes=st.none() | st.lists(st.booleans(), min_size=TOKENS, max_size=TOKENS).map(np.array).map(pack_positions),
    pinned=st.none() | st.lists(st.integers(-1, CODES - 1), min_size=TOKENS, max_size=TOKENS).map(tuple),
    image_sha256=st.just("ab"),
)
seeds = st.integers(0, 2**53 - 1)


def request(sampler: str, steps: int = 4, z: int = 3, **changes: Any) -> Parameters:
    has_z = "tokens_per_step" in SAMPLERS[sampler].fields
    return make_parameters(sampler=sampler, steps=steps, tokens_per_step=z if has_z else None, **changes)


@given(edits, seeds, st.integers(0, 3))
@PROPERTY
def test_a_position_is_masked_or_kept_or_begins_as_it_was(edit: Edit, seed: int, image: int) -> None:
    start = start_of(edit, seed, image, READ, TOKENS, CODES)
    wanted = READ if edit.pinned is None else np.where(np.array(edit.pinned) == FREE, READ, edit.pinned)
    masked, kept = start.tokens == CODES, start.pinned != FREE
    assert masked.sum() == masked_at_first(edit, TOKENS)
    assert not (masked & kept).any()
    assert (start.tokens[~masked] == wanted[~masked]).all()
    assert (start.pinned[kept] == wanted[kept]).all()
    if edit.changes is not None:
        assert kept[~unpack_positions(edit.changes, TOKENS)].all()
    if edit.pinned is not None:
        assert kept[np.array(edit.pinned) != FREE].all()


@given(edits, seeds)
@PROPERTY
def test_strength_0_keeps_all_strength_1_masks_all_and_more_masks_more(edit: Edit, seed: int) -> None:
    def masked(strength: float) -> Any:
        part = edit.model_copy(update={"strength": strength})
        return start_of(part, seed, 0, READ, TOKENS, CODES).tokens == CODES

    none, some, more, every = (masked(s) for s in (0, edit.strength / 2, edit.strength, 1))
    assert not none.any()
    assert not (some & ~more).any()
    assert (every == (start_of(edit, seed, 0, READ, TOKENS, CODES).pinned == FREE)).all()


@given(st.sampled_from([*SAMPLERS]), st.integers(0, TOKENS), st.integers(1, TOKENS), st.integers(1, TOKENS), seeds)
@PROPERTY
def test_a_plan_reveals_what_is_masked_and_takes_its_share_of_the_evaluations(
    sampler: str, masked: int, steps: int, z: int, seed: int
) -> None:
    wanted = request(sampler, steps, z, seed=seed, final_resample=False)
    plan, whole = (make_plan(wanted, TOKENS, TIMESTEPS, 0, count) for count in (masked, TOKENS))
    assert len(plan) <= len(whole)
    assert (len(plan) == 0) is (masked == 0)
    share = math.ceil(steps * masked / TOKENS)
    if sampler == "ancestral":
        assert (plan.reveal == ANCESTRAL).all()
        assert len(plan) == share
    else:
        assert plan.reveal.sum() == masked
        assert (plan.reveal > 0).all()
        most = share if sampler != "md4" else len(plan)
        assert len(plan) == max(most, math.ceil(masked / z) if wanted.tokens_per_step else 0)
    for name, array in vars(plan).items():
        assert len(array) == (TOKENS if name == "order" else len(plan)), name
    assert effort_of(wanted, TOKENS, TIMESTEPS, masked) == (len(plan), plan.passes)


@given(st.sampled_from([*SAMPLERS]), st.integers(1, TOKENS), seeds)
@PROPERTY
def test_the_network_is_told_how_much_of_the_whole_picture_is_masked(sampler: str, masked: int, seed: int) -> None:
    plan = make_plan(request(sampler, 8, 1, seed=seed, final_resample=False), TOKENS, TIMESTEPS, 0, masked)
    assert plan.timestep[0] == pytest.approx(masked / TOKENS * (TIMESTEPS - 1), abs=1)
    assert (np.diff([*plan.timestep, -1]) <= 0).all()
    assert (plan.timestep_next == [*plan.timestep[1:], -1]).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_without_an_edit_everything_is_masked(sampler: str) -> None:
    assert masked_at_first(None, TOKENS) == TOKENS
    wanted = request(sampler)
    for one, other in zip(
        vars(make_plan(wanted, TOKENS, TIMESTEPS)).values(),
        vars(make_plan(wanted, TOKENS, TIMESTEPS, 0, TOKENS)).values(),
        strict=True,
    ):
        assert (one == other).all()


def test_codes_without_a_picture() -> None:
    pinned = (3, *[FREE] * (TOKENS - 1))
    start = start_of(Edit(pinned=pinned), 7, 0, None, TOKENS, CODES)
    assert start.tokens.tolist() == [3, *[CODES] * (TOKENS - 1)]
    assert start.pinned.tolist() == list(pinned)


def test_each_seed_and_each_image_loses_other_positions() -> None:
    edit = Edit(strength=0.5, image_sha256="ab")
    grids = {start_of(edit, s, i, READ, TOKENS, CODES).tokens.tobytes() for s in (1, 2) for i in (0, 1)}
    assert len(grids) == 4


def test_a_job_without_a_picture_is_written_as_a_worker_of_the_version_before_reads_it() -> None:
    plain = Job(
        id="a", model="m", prompt="", negative_prompt=None, parameters=make_parameters(), priority=Priority.BATCH
    )
    assert "edit" not in plain.model_dump_json()
    edited = plain.model_copy(update={"edit": Edit(image_sha256="ab", strength=0.5)})
    assert Job.model_validate_json(edited.model_dump_json(), extra="forbid") == edited
