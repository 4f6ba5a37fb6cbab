"""The step as CUDA graphs run it, on the CPU, where nothing is recorded: the same tokens, and nothing to wait for."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from peers.random_models import TINY, only_row, random_step, run, step_inputs
from test_step import mixed_rows

from service.diffusion.step import DiffusionStep
from service.export.graphs import SEGMENT, Graphs, size_above
from service.export.modules import script
from service.triton.contract import diffusion_step

NAMES = [tensor.name for tensor in diffusion_step(TINY.condition).inputs]
WAITS = {"aten::Bool", "aten::Int", "aten::Float", "aten::item", "aten::nonzero", "aten::tensor"}
"""Operators of TorchScript that ask the GPU for a value, or copy one from the CPU: a graph cannot record them."""


@pytest.fixture(scope="module")
def step() -> DiffusionStep:
    return random_step(TINY)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("passes", [0, 1, 2, 4, 16])
def test_tokens_are_those_of_the_step(step: DiffusionStep, passes: int) -> None:
    """Rows that agree in nothing, with pinned positions, all samplers, truncation, retiring."""
    inputs = mixed_rows()
    wanted = run(step, inputs)
    got = Graphs(script(random_step(TINY)), 8, passes, "cpu")([inputs[name] for name in NAMES])
    assert [tensor.dtype for tensor in got] == [torch.int32, torch.float16]
    assert all(torch.equal(*pair) for pair in zip(got, wanted, strict=True))


def test_one_object_serves_calls_of_any_size_and_length(step: DiffusionStep) -> None:
    graphs = Graphs(step, 6, device="cpu")
    for inputs in (mixed_rows(), only_row(mixed_rows(), 3), mixed_rows(SEGMENT + 3), mixed_rows(2)):
        got = graphs([inputs[name] for name in NAMES])
        assert torch.equal(got[0], run(step, inputs)[0])


def test_an_evaluation_pays_only_for_pairs_with_a_weight(step: DiffusionStep) -> None:
    seen: list[int] = []
    hook = step.transformer.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    inputs = step_inputs(TINY, rows=3, guidance=torch.tensor([[1.0, 2.0]] * 3), timestep=[60, 40])
    Graphs(step, 4, device="cpu")([inputs[name] for name in NAMES])
    hook.remove()
    assert seen == [3, 6]


def test_sizes_leave_little_room() -> None:
    assert [size_above(n) for n in (1, 2, 3, 5, 7, 9, 11, 16, 17, 33)] == [1, 2, 3, 5, 7, 10, 12, 16, 20, 40]
    assert all(n <= size_above(n) < 1.25 * n + 1 for n in range(1, 300))


def test_an_evaluation_never_waits_for_the_data() -> None:
    """Branches on what the rows need are plain values; what else would stop a graph is looked for in the code."""
    scripted = script(random_step(TINY))
    assert not {node.kind() for node in nodes(scripted.replay.inlined_graph)} & WAITS


def nodes(block: Any) -> Iterator[Any]:
    """Of a TorchScript graph, with all that is in its branches."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from nodes(inner)
