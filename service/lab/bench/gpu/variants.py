"""The ways to run a step on a device that the programme compares."""

from typing import Any

import torch
from torch import Tensor

from service.diffusion.step import DiffusionStep
from service.export.graphs import Graphs
from service.lab.bench.gpu.calls import Step
from service.models.transformer import VQTransformer


def plain(step: DiffusionStep, device: str) -> Step:
    """As the pytorch backend runs it: the data decide in the step what is worked out."""

    @torch.inference_mode()
    def call(inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        grids, purity = step.run([x.to(device) for x in inputs])
        return grids.cpu(), purity.cpu()

    return call


def compile_blocks(network: VQTransformer) -> None:
    """Each block compiled: the same code serves all."""
    for block in network.transformer_blocks:
        block.compile(dynamic=False)


def over(variant: str, step: DiffusionStep, device: str, rows: int, passes: int = 0) -> Step:
    """``step`` run as ``variant``: plain, script, or as CUDA graphs for at most ``rows`` (all others)."""
    module: Any = torch.jit.script(step) if "script" in variant else step
    return plain(module, device) if variant in ("plain", "script") else Graphs(module, rows, passes, device)
