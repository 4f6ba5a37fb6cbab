"""One evaluation of ``diffusion_step`` for the official figures, through the contract's inputs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from service.diffusion.step import DiffusionStep
from service.models.folder import LoadedModel


@dataclass(frozen=True)
class Settings:
    """Of every row of a call."""

    guidance: float
    truncation: float
    r: float
    by_purity: bool


def evaluate(  # noqa: PLR0913, PLR0917  what an evaluation is of
    model: LoadedModel,
    condition: Tensor,
    null: Tensor | None,
    tokens: Tensor,
    times: Tensor,
    count: Tensor,
    uniforms: Tensor,
    settings: Settings,
) -> Tensor:
    """The tokens [B, L] after it. ``times`` [2, B]: timestep and the next one; ``count`` [B]: -1 is every position."""
    rows = len(tokens)
    step = DiffusionStep(model.transformer, model.info.codes, model.info.timesteps)
    assert null is not None or settings.guidance == 1

    def column(value: float) -> Tensor:
        return torch.full((rows, 1), value)

    found, _ = step(
        tokens=tokens,
        pinned=torch.full_like(tokens, -1),
        context=condition,
        null_context=condition if null is None else null,
        timestep=times[0][:, None],
        timestep_next=times[1][:, None],
        reveal=count[:, None],
        guidance=column(settings.guidance),
        selection=column(settings.by_purity).int(),
        purity_r=column(settings.r),
        temperature=column(1.0),
        truncation=column(settings.truncation),
        purity_form=column(0).int(),
        uniforms=uniforms[:, None],
    )
    return found
