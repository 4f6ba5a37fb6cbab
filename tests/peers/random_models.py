"""Small models with random weights, and inputs for the step, shared by the parity and unit tests."""

from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from service.diffusion.guidance import combine
from service.diffusion.noise import uniforms
from service.diffusion.plan import Plan
from service.diffusion.served import TextStep
from service.models.transformer import TransformerConfig, VQTransformer

M = TypeVar("M", bound=nn.Module)

RELEASED_FAMILY = TransformerConfig(
    num_attention_heads=4,
    attention_head_dim=16,
    num_layers=3,
    cross_attention_dim=48,
    sample_size=8,
    num_vector_embeds=65,
    num_embeds_ada_norm=100,
)
"""The released text models scaled down: 8x8 tokens of 64 codes, 3 blocks of width 64, 16 text states of width 48."""
TINY = replace(RELEASED_FAMILY, num_attention_heads=2, num_layers=1, sample_size=4, num_vector_embeds=13)
TEXT_POSITIONS = 16
CONTEXTS = ("context", "null_context")


def randomise(module: M, seed: int, gain: float = 1.0) -> M:
    """Random weights everywhere, norms and biases too: their usual 1 and 0 would hide a swapped or missing one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() < 2:
                parameter.copy_(float(name.endswith("weight")) + 0.2 * noise)
            elif "emb" in name:
                parameter.copy_(noise)
            else:
                parameter.copy_(gain * noise * parameter[0].numel() ** -0.5)
    return module.eval().requires_grad_(False)


def random_step(config: TransformerConfig = TINY, seed: int = 0) -> TextStep:
    """A step whose predictions are neither flat nor certain."""
    transformer = randomise(VQTransformer(config), seed)
    return TextStep(transformer, config.codes, config.num_embeds_ada_norm).eval().requires_grad_(False)


def step_inputs(config: TransformerConfig = TINY, rows: int = 1, seed: int = 0, **given: Any) -> dict[str, Tensor]:
    """Inputs of one call by name, all masked, one purity evaluation of 4 tokens; ``given`` replaces any of them.

    A given scalar fills its tensor, a list becomes [rows, k] (the same in every row). ``guidance`` stands for the
    weights s and 1 − s, ``context`` and ``null_context`` for the two conditions.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens, states = config.tokens, (rows, TEXT_POSITIONS, config.cross_attention_dim)
    lengths = [len(value) for value in given.values() if isinstance(value, list)]
    lengths += [given[name].shape[1] for name in ("timestep", "uniforms") if isinstance(given.get(name), Tensor)]
    k = max(lengths, default=1)
    inputs = {
        "tokens": torch.full((rows, tokens), config.codes, dtype=torch.int32),
        "pinned": torch.full((rows, tokens), -1, dtype=torch.int32),
        "contexts": torch.stack([torch.randn(states, generator=generator).half() for _ in range(2)], 1),
        "timestep": torch.full((rows, k), 60, dtype=torch.int32),
        "timestep_next": torch.full((rows, k), 40, dtype=torch.int32),
        "weights": torch.tensor([2.0, -1.0]).expand(rows, k, 2),
        "reveal": torch.full((rows, k), 4, dtype=torch.int32),
        "remask": torch.zeros(rows, k, dtype=torch.int32),
        "revise": torch.zeros(rows, k, dtype=torch.int32),
        "reveal_score": torch.tensor([1.0, 0.0, 1.0, 0.0]).expand(rows, k, 4),
        "retire_score": torch.zeros(rows, k, 4),
        "order": torch.zeros(rows, tokens),
        "sharpen": torch.ones(rows, k),
        "temperature": torch.ones(rows, k),
        "truncation": torch.ones(rows, k),
        "purity_form": torch.zeros(rows, 1, dtype=torch.int32),
        "uniforms": torch.from_numpy(np.stack([uniforms(seed, row, 0, k, tokens) for row in range(rows)])),
    }
    for name, value in given.items():
        if name == "guidance":
            s = torch.as_tensor(value, dtype=torch.float32).expand(rows, k)
            inputs["weights"] = torch.stack([s, 1 - s], 2)
            continue
        if name in CONTEXTS:
            inputs["contexts"] = inputs["contexts"].to(value.dtype)
            inputs["contexts"][:, CONTEXTS.index(name)] = value
            continue
        like = inputs[name]
        whole = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=like.dtype).expand_as(like)
        inputs[name] = whole.contiguous()
    return inputs


def plan_inputs(plan: Plan) -> dict[str, Tensor]:
    """The plan's arrays as [1, N, …] inputs of a step."""
    return {field.name: torch.from_numpy(np.array(getattr(plan, field.name)))[None] for field in fields(plan)}


def run(step: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(tokens_out, purity), as the served model would compute them."""
    with torch.inference_mode():
        tokens, purity = step(**inputs)
    return tokens, purity


def only_row(inputs: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    return {name: value[row : row + 1] for name, value in inputs.items()}


def only_evaluation(inputs: dict[str, Tensor], evaluation: int) -> dict[str, Tensor]:
    whole = ("tokens", "pinned", "contexts", "labels", "order", "purity_form")
    at = slice(evaluation, evaluation + 1)
    return {name: value if name in whole else value[:, at] for name, value in inputs.items()}


def guided(conditional: Tensor, null: Tensor, scale: Tensor) -> Tensor:
    """As the step does it: a pass for every condition with a weight."""
    weights = torch.stack([scale, 1 - scale], 1)
    condition, row = (weights != 0).t().nonzero().unbind(1)
    return combine(torch.stack([conditional, null])[condition, row], row, condition, weights)
