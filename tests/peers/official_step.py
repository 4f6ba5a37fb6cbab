"""One evaluation of ``diffusion_step`` for the official figures, through the contract's inputs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from service.condition import Condition
from service.diffusion.served import step_for
from service.models.folder import LoadedModel


@dataclass(frozen=True)
class Settings:
    """Of every row of a call."""

    guidance: float
    truncation: float
    r: float
    by_purity: bool


def evaluate(model: LoadedModel, inputs: dict[str, Tensor]) -> Tensor:
    """The tokens [B, L] after one evaluation."""
    info = model.info
    found, _ = step_for(info.condition, model.transformer, info.codes, info.timesteps)(**inputs)
    return found


def inputs_of(  # noqa: PLR0913, PLR0917  what an evaluation is of
    kind: Condition,
    condition: Tensor,
    null: Tensor | None,
    tokens: Tensor,
    times: Tensor,
    count: Tensor,
    uniforms: Tensor,
    settings: Settings,
) -> dict[str, Tensor]:
    """The contract's inputs. ``times`` [2, B]: timestep and the next one; ``count`` [B]: -1 is every position."""
    rows = len(tokens)
    assert null is not None or settings.guidance == 1
    conditions = [condition] if null is None else [condition, null]
    s = settings.guidance

    def each(*values: float) -> Tensor:
        return torch.tensor(values).expand(rows, 1, len(values))

    inputs = {
        "tokens": tokens,
        "pinned": torch.full_like(tokens, -1),
        "timestep": times[0][:, None],
        "timestep_next": times[1][:, None],
        "weights": each(s, 1 - s) if null is not None else each(1.0),
        "reveal": count[:, None],
        "remask": torch.zeros(rows, 1).int(),
        "revise": torch.zeros(rows, 1).int(),
        "reveal_score": each(float(settings.by_purity), 0.0, 1.0, 0.0),
        "retire_score": each(0.0, 0.0, 0.0, 0.0),
        "order": torch.zeros(tokens.shape),
        "sharpen": each(settings.r if settings.by_purity else 0.0)[:, 0],
        "temperature": torch.ones(rows, 1),
        "truncation": torch.full((rows, 1), settings.truncation),
        "purity_form": torch.zeros(rows, 1).int(),
        "uniforms": uniforms[:, None],
    }
    names = {Condition.TEXT: "contexts", Condition.LABEL: "labels"}
    if kind in names:
        inputs[names[kind]] = torch.stack(conditions, 1)
    return inputs
