"""The step for compilers: one evaluation, every pair of row and condition, nothing that depends on the data."""

import torch
from torch import Tensor, nn

from service.condition import Condition
from service.diffusion.evaluation import Needs
from service.diffusion.guidance import steer, truncate_by_threshold
from service.diffusion.step import DiffusionStep, told_at

EVERYTHING = Needs(guidance=True, truncation=True, posterior=True, retiring=True)


class CompiledStep(nn.Module):
    """``DiffusionStep`` with the contract's tensors as ``torch.export`` can follow it, for one evaluation a call.

    Any number of rows and of conditions. A condition without a weight costs its pass: only a call in which nobody has
    a second one is cheaper.
    """

    def __init__(self, step: DiffusionStep, condition: Condition) -> None:
        super().__init__()
        self.step, self.condition = step, condition

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """The contract's inputs in its order, k = 1 → (tokens_out INT32, purity FP16), both [B, L]."""
        inputs = list(tensors)
        if self.condition is Condition.NONE:
            inputs.insert(2, torch.zeros_like(inputs[4][:, 0], dtype=torch.long))
        told, pinned = told_at(inputs, 0), inputs[1].long()
        x = torch.where(pinned < 0, inputs[0].long(), pinned)
        conditions = inputs[2] if inputs[2].is_floating_point() else inputs[2].long()
        many = conditions.shape[1]
        memory = self.step.memory_of(conditions.transpose(0, 1).flatten(0, 1))
        passes = self.step.denoise(x.repeat(many, 1), told.timestep.repeat(many), memory)
        log_p = steer(passes.unflatten(0, [many, x.shape[0]]), told.weights)
        rate = told.truncation
        log_p = torch.where((rate < 1)[:, None, None], truncate_by_threshold(log_p, rate), log_p)
        after, purity = self.step.sampling(log_p, x, pinned, told, EVERYTHING)
        return after.int(), purity.half()
