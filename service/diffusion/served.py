"""``DiffusionStep`` behind the contract's tensors, one for each kind of model: TorchScript wants them by name."""

import torch
from torch import Tensor

from service.condition import Condition
from service.diffusion.step import Denoiser, DiffusionStep


class TextStep(DiffusionStep):
    """Conditioned on text states."""

    def forward(  # noqa: PLR0913, PLR0917  the contract's tensors
        self,
        tokens: Tensor,
        pinned: Tensor,
        contexts: Tensor,
        timestep: Tensor,
        timestep_next: Tensor,
        weights: Tensor,
        reveal: Tensor,
        remask: Tensor,
        revise: Tensor,
        reveal_score: Tensor,
        retire_score: Tensor,
        order: Tensor,
        sharpen: Tensor,
        temperature: Tensor,
        truncation: Tensor,
        purity_form: Tensor,
        uniforms: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Shapes and types as in the contract; returns (tokens_out INT32 [B, L], purity FP16 [B, L])."""
        inputs = [tokens, pinned, contexts, timestep, timestep_next, weights, reveal, remask, revise]
        inputs += [reveal_score, retire_score, order, sharpen, temperature, truncation, purity_form, uniforms]
        return self.run(inputs)


class LabelStep(DiffusionStep):
    """Conditioned on classes."""

    def forward(  # noqa: PLR0913, PLR0917  the contract's tensors
        self,
        tokens: Tensor,
        pinned: Tensor,
        labels: Tensor,
        timestep: Tensor,
        timestep_next: Tensor,
        weights: Tensor,
        reveal: Tensor,
        remask: Tensor,
        revise: Tensor,
        reveal_score: Tensor,
        retire_score: Tensor,
        order: Tensor,
        sharpen: Tensor,
        temperature: Tensor,
        truncation: Tensor,
        purity_form: Tensor,
        uniforms: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Shapes and types as in the contract; returns (tokens_out INT32 [B, L], purity FP16 [B, L])."""
        inputs = [tokens, pinned, labels.long(), timestep, timestep_next, weights, reveal, remask, revise]
        inputs += [reveal_score, retire_score, order, sharpen, temperature, truncation, purity_form, uniforms]
        return self.run(inputs)


class PlainStep(DiffusionStep):
    """Without any condition."""

    def forward(  # noqa: PLR0913, PLR0917  the contract's tensors
        self,
        tokens: Tensor,
        pinned: Tensor,
        timestep: Tensor,
        timestep_next: Tensor,
        weights: Tensor,
        reveal: Tensor,
        remask: Tensor,
        revise: Tensor,
        reveal_score: Tensor,
        retire_score: Tensor,
        order: Tensor,
        sharpen: Tensor,
        temperature: Tensor,
        truncation: Tensor,
        purity_form: Tensor,
        uniforms: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Shapes and types as in the contract; returns (tokens_out INT32 [B, L], purity FP16 [B, L])."""
        inputs = [
            tokens,
            pinned,
            torch.zeros_like(weights[:, 0]).long(),
            timestep,
            timestep_next,
            weights,
            reveal,
            remask,
            revise,
        ]
        inputs += [reveal_score, retire_score, order, sharpen, temperature, truncation, purity_form, uniforms]
        return self.run(inputs)


STEPS: dict[Condition, type[DiffusionStep]] = {
    Condition.TEXT: TextStep,
    Condition.LABEL: LabelStep,
    Condition.NONE: PlainStep,
}


def step_for(condition: Condition, transformer: Denoiser, codes: int, timesteps: int) -> DiffusionStep:
    return STEPS[condition](transformer, codes, timesteps)
