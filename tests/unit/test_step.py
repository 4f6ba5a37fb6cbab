"""The step as a whole: rows and evaluations are independent, pinned codes stay, and TorchScript agrees."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from peers.random_models import TINY, only_evaluation, only_row, random_step, run, step_inputs
from torch import Tensor

from service.diffusion.evaluation import needs_of
from service.diffusion.guidance import normalise, truncate
from service.diffusion.step import DiffusionStep, told_at
from service.export.modules import script

TOKENS, MASK = TINY.tokens, TINY.codes
WALK = {"timestep": [90, 70, 50, 30], "timestep_next": [70, 50, 30, -1]}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def step() -> DiffusionStep:
    return random_step(TINY)


def by_row(values: list[float]) -> Tensor:
    return torch.tensor(values)[:, None]


def mixed_rows(k: int = 4) -> dict[str, Tensor]:
    """Six rows that agree in nothing: samplers, timesteps, guidance, forms, grids half done, pinned codes."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, MASK, (6, TOKENS), generator=generator)
    tokens = torch.where(torch.rand(6, TOKENS, generator=generator) < 0.7, MASK, tokens)
    pinned = torch.full((6, TOKENS), -1)
    pinned[1, 3], pinned[4, :4] = 5, torch.tensor([0, 1, 2, 11])
    timestep = torch.randint(20, 100, (6, k), generator=generator)
    reveal = torch.tensor([[2], [3], [-1], [1], [-1], [0]]).repeat(1, k)
    reveal[0, -1] = -1
    guidance = torch.tensor([[2.0], [1.0], [5.0], [1.0], [0.0], [3.0]]).repeat(1, k)
    guidance[5, :2] = 1.0
    return step_inputs(
        TINY,
        rows=6,
        tokens=tokens.int(),
        pinned=pinned.int(),
        timestep=timestep.int(),
        timestep_next=(timestep - 7).int(),
        reveal=reveal.int(),
        guidance=guidance,
        remask=by_row([0, 1, 0, 2, 0, 1]).int().repeat(1, k),
        revise=by_row([1, 0, 0, 1, 0, 2]).int().repeat(1, k),
        reveal_score=torch.rand(6, k, 4, generator=generator),
        retire_score=torch.rand(6, k, 4, generator=generator),
        order=torch.rand(6, TOKENS, generator=generator),
        sharpen=by_row([1.0, 0.0, 2.0, 0.5, 0.0, 1.0]) * torch.linspace(1, 2, k),
        temperature=by_row([0.7, 0.5, 1.0, 2.0, 3.0, 1.0]) * torch.linspace(1, 2, k),
        truncation=by_row([1.0, 0.86, 0.94, 1.0, 1.0, 0.5]) * torch.linspace(1, 0.9, k),
        purity_form=by_row([0, 1, 1, 0, 0, 1]).int(),
        uniforms=torch.rand(6, k, TOKENS, 2, generator=generator),
    )


def test_a_row_is_the_same_alone_and_in_a_mixed_batch(step: DiffusionStep) -> None:
    inputs = mixed_rows()
    tokens, purity = run(step, inputs)
    for row in range(6):
        alone, alone_purity = run(step, only_row(inputs, row))
        assert torch.equal(alone[0], tokens[row]), f"row {row}"
        torch.testing.assert_close(alone_purity[0], purity[row], rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("rows", [1, 6])
def test_parts_of_the_batch_make_the_whole(step: DiffusionStep, rows: int) -> None:
    """In TorchScript, where parts really run side by side; one row alone is cut into its two passes."""
    inputs = {name: value[:rows] for name, value in mixed_rows().items()}
    whole, whole_purity = run(step, inputs)
    scripted = script(step)
    for parts in (1, 2, 3, 20):
        scripted.parts = parts
        tokens, purity = run(scripted, inputs)
        assert torch.equal(tokens, whole), f"{parts} parts"
        torch.testing.assert_close(purity, whole_purity, rtol=2e-3, atol=1e-3)


def test_the_order_of_rows_does_not_matter(step: DiffusionStep) -> None:
    inputs = mixed_rows()
    order = torch.tensor([5, 3, 0, 4, 1, 2])
    tokens, _ = run(step, inputs)
    shuffled, _ = run(step, {name: value[order] for name, value in inputs.items()})
    assert torch.equal(shuffled, tokens[order])


def test_evaluations_of_one_call_equal_single_calls(step: DiffusionStep) -> None:
    inputs = mixed_rows()
    together, purity = run(step, inputs)
    for e in range(4):
        inputs["tokens"], single = run(step, only_evaluation(inputs, e))
    assert torch.equal(inputs["tokens"], together)
    torch.testing.assert_close(single, purity, rtol=2e-3, atol=1e-3)


def test_unguided_rows_never_read_the_null_context(step: DiffusionStep) -> None:
    inputs = step_inputs(TINY, rows=2, guidance=torch.tensor([[1.0], [3.0]]))
    expected, _ = run(step, inputs)
    inputs["contexts"][0, 1] = torch.nan
    tokens, purity = run(step, inputs)
    assert torch.equal(tokens, expected)
    assert torch.isfinite(purity).all()


def test_a_null_pass_is_paid_only_for_guided_rows(step: DiffusionStep) -> None:
    batches: list[int] = []
    hook = step.transformer.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    run(step, step_inputs(TINY, rows=3, guidance=1.0))
    run(step, step_inputs(TINY, rows=3, guidance=torch.tensor([[1.0], [2.0], [1.0]])))
    hook.remove()
    assert batches == [3, 4]


def test_guidance_changes_the_picture(step: DiffusionStep) -> None:
    grids = {run(step, step_inputs(TINY, reveal=TOKENS, guidance=s))[0].numpy().tobytes() for s in (0.0, 1.0, 2.0, 8.0)}
    assert len(grids) == 4


def test_truncation_of_one_row_leaves_the_others_to_the_bit() -> None:
    """Not truncated is not the same as truncated at 1, which loses codes so rare that the sum does not move."""
    peaked = 20 * torch.randn(2, TOKENS, MASK, generator=torch.Generator().manual_seed(4))
    step = random_step(TINY)
    tokens, memory = torch.full((2, TOKENS), MASK), [torch.empty(0)]
    rows, first = torch.arange(2), torch.zeros(2, dtype=torch.long)

    def predict(*rates: float) -> Tensor:
        inputs = step_inputs(TINY, rows=2, guidance=1.0, truncation=torch.tensor(rates)[:, None])
        told = told_at([*inputs.values()], 0)._replace(weights=torch.ones(2, 1))
        return step.predict(tokens, rows, first, memory, told, needs_of(told))

    step.denoise_parts = lambda *_: normalise(peaked)  # type: ignore[method-assign]  # a network that is nearly sure
    whole = predict(1, 1)
    assert not torch.equal(truncate(whole, torch.ones(2)), whole), "the logits are not peaked enough to tell"
    assert torch.equal(predict(1, 0.9)[0], whole[0])
    assert torch.equal(predict(0.9, 1)[1], whole[1])


@pytest.mark.parametrize("reveal", [[4, 4, 4, 4], [-1] * 4, [5, 5, 6, -1]], ids=["purity", "ancestral", "resample"])
def test_pinned_positions_always_keep_their_code(step: DiffusionStep, reveal: list[int]) -> None:
    pinned = torch.full((1, TOKENS), -1, dtype=torch.int32)
    pinned[0, ::3] = torch.arange(len(pinned[0, ::3]), dtype=torch.int32)
    inputs = step_inputs(TINY, pinned=pinned, reveal=reveal, **WALK)
    kept = pinned >= 0
    for e in range(4):
        inputs["tokens"], _ = run(step, only_evaluation(inputs, e))
        assert torch.equal(inputs["tokens"][kept], pinned[kept])
    assert int(inputs["tokens"].max()) < MASK


def test_reveal_commits_the_count_and_leaves_the_rest(step: DiffusionStep) -> None:
    inputs = step_inputs(TINY, reveal=[4, 4, 4, 4], **WALK)
    before, _ = run(step, only_evaluation(inputs, 0))
    assert int((before != MASK).sum()) == 4
    inputs["tokens"] = before
    after, _ = run(step, only_evaluation(inputs, 1))
    committed = before != MASK
    assert torch.equal(after[committed], before[committed])
    assert int((after != MASK).sum()) == 8
    finished, _ = run(step, step_inputs(TINY, reveal=[4, 4, 4, 4], **WALK))
    assert not (finished == MASK).any()


def test_final_resample_draws_every_position_anew_from_p_x0(step: DiffusionStep) -> None:
    """Codes that were committed before do not stay: each position is a draw from what the network sees in the grid."""
    finished = torch.randint(0, MASK, (1, TOKENS), generator=torch.Generator().manual_seed(3)).int()
    inputs = step_inputs(TINY, tokens=finished, reveal=-1, timestep=0, timestep_next=-1, guidance=1.0)
    tokens, _ = run(step, inputs)
    memory = step.transformer.memory(inputs["contexts"][:, 0].float())
    p = step.transformer(finished.long(), torch.tensor([0]), memory).softmax(-1)[0].double()
    u = inputs["uniforms"][0, 0, :, :1].double()
    assert torch.equal(tokens[0].long(), (p.cumsum(-1) <= u).sum(-1))
    assert not torch.equal(tokens, finished)


@pytest.mark.parametrize("given", [{}, {"reveal": -1}, {"reveal": 0}, {"reveal": -1, "timestep_next": -1}], ids=str)
def test_types_shapes_and_ranges_of_the_contract(step: DiffusionStep, given: dict[str, Any]) -> None:
    tokens, purity = run(step, step_inputs(TINY, rows=3, **given))
    assert (tokens.dtype, purity.dtype) == (torch.int32, torch.float16)
    assert tokens.shape == purity.shape == (3, TOKENS)
    assert int(tokens.min()) >= 0
    assert int(tokens.max()) <= MASK
    assert float(purity.min()) >= 1 / TINY.codes - 1e-3
    assert float(purity.max()) <= 1


def test_a_broken_context_shows_in_the_purity(step: DiffusionStep) -> None:
    """The client tells a NaN by it: tokens are integers and cannot say."""
    inputs = step_inputs(TINY, rows=2)
    inputs["contexts"][1, 0] = torch.nan
    _, purity = run(step, inputs)
    assert torch.isfinite(purity[0]).all()
    assert torch.isnan(purity[1]).all()


def test_scripted_equals_eager(step: DiffusionStep) -> None:
    scripted = torch.jit.script(step)
    inputs = mixed_rows()
    tokens, purity = run(step, inputs)
    for _ in range(3):  # TorchScript compiles again once it knows the shapes
        again, again_purity = run(scripted, inputs)
        assert torch.equal(again, tokens)
        torch.testing.assert_close(again_purity, purity, rtol=2e-3, atol=1e-3)
