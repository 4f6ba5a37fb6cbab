"""Whether the folder that was written computes what the checkpoint does: the official network, in plain functions."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from service.condition import Condition
from service.errors import SetupError
from service.models.convert.checkpoint import NETWORK, open_checkpoint
from service.models.convert.parts import Part
from service.models.registry import DENOISERS, named
from service.models.transformer import TransformerConfig

TOLERANCE = 1e-4
"""Of the largest logit. A weight in a wrong place makes a thousand times more; another order of sums, a tenth."""
SIDE = 16
"""Of the sample's grid at most: more tokens would take longer, and go through the same layers."""
POSITIONS = 4
"""Text states of the sample."""
Weights = Callable[[str], Tensor]


def check_logits(
    folder: Path, part: Part, checkpoint: Path, config: TransformerConfig, on_block: Callable[[], Any]
) -> float:
    """The largest difference of logits between folder and checkpoint. Raises SetupError where they disagree."""
    sample = sample_for(config)
    with torch.inference_mode():
        ours = folder_logits(folder / part.folder, part, config, *sample)
        theirs = official_logits(open_checkpoint(checkpoint).state, config, *sample, on_block)
    difference, largest = float((ours - theirs).abs().max()), float(theirs.abs().max())
    if not difference <= TOLERANCE * max(largest, 1.0):
        raise SetupError(
            f"{folder}: its logits differ from those of {checkpoint} by {difference:.1e}: the folder is not the model. "
            "This should not be; please report it with the names and shapes in the checkpoint"
        )
    return difference


def sample_for(config: TransformerConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, half of them masked, a timestep and a condition of one row."""
    generator = torch.Generator().manual_seed(0)
    count = min(config.sample_size, SIDE) ** 2
    tokens = torch.randint(0, config.codes, (1, count), generator=generator)
    tokens = tokens.masked_fill(torch.rand(1, count, generator=generator) < 0.5, config.codes)
    condition = torch.tensor([max(config.classes - 1, 0)])
    if config.condition is Condition.TEXT:
        condition = torch.randn(1, POSITIONS, config.text_width, generator=generator)
        condition = F.normalize(condition, dim=-1)
    return tokens, torch.tensor([config.timesteps // 2]), condition


def folder_logits(
    folder: Path, part: Part, config: TransformerConfig, tokens: Tensor, timestep: Tensor, condition: Tensor
) -> Tensor:
    """With the network that a service would load, its weights mapped from the files."""
    with torch.device("meta"):
        network, _ = named(DENOISERS, "_class_name")(json.loads((folder / "config.json").read_text()))
    state: dict[str, Tensor] = {}
    for path in sorted(folder.glob(f"{part.stem}*.safetensors")):
        with safe_open(path, "pt") as file:
            state |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
    module = cast(nn.Module, network)  # mypy has no type that is a protocol and a module
    module.load_state_dict(state, assign=True)
    module.eval()
    return network(tokens, timestep, network.memory(condition))


def official_logits(
    state: Mapping[str, Tensor],
    config: TransformerConfig,
    tokens: Tensor,
    timestep: Tensor,
    condition: Tensor,
    on_block: Callable[[], Any] = lambda: None,
) -> Tensor:
    """Logits [1, L, K] by the official names, written down once more and apart from our networks."""

    def below(prefix: str) -> Weights:
        return lambda name: state[f"{NETWORK}{prefix}.{name}"].float()

    embedding = below("content_emb")
    heights, widths = embedding("height_emb.weight"), embedding("width_emb.weight")
    place = torch.arange(tokens.shape[1])
    x = embedding("emb.weight")[tokens] + heights[place // len(widths)] + widths[place % len(widths)]
    for n in range(config.num_layers):
        x = block(x, below(f"blocks.{n}"), config, timestep, condition)
        on_block()
    last = below("to_logits")
    x = F.layer_norm(x, x.shape[-1:], last("0.weight"), last("0.bias"))
    return F.linear(x, last("1.weight"), last("1.bias"))


def block(x: Tensor, weights: Weights, config: TransformerConfig, timestep: Tensor, condition: Tensor) -> Tensor:
    heads = config.num_attention_heads
    if config.condition is Condition.TEXT:
        y = adaptive_norm(x, weights, "ln1", timestep)
        x = x + attention(y, y, weights, "attn1", heads)
        x = x + attention(adaptive_norm(x, weights, "ln1_1", timestep), condition, weights, "attn2", heads)
    else:
        y = adaptive_norm(x, weights, "ln1", timestep)
        x = x + attention(y, y, weights, "attn", heads)
    if config.condition is Condition.LABEL:
        y = adaptive_norm(x, weights, "ln2", condition)
    else:
        y = F.layer_norm(x, x.shape[-1:], weights("ln2.weight"), weights("ln2.bias"))
    return x + mlp(y, weights, config.convolution)


def adaptive_norm(x: Tensor, weights: Weights, name: str, index: Tensor) -> Tensor:
    chosen = F.silu(weights(f"{name}.emb.weight")[index])
    scale, shift = F.linear(chosen, weights(f"{name}.linear.weight"), weights(f"{name}.linear.bias")).chunk(2, -1)
    return F.layer_norm(x, x.shape[-1:]) * (1 + scale[:, None]) + shift[:, None]


def attention(x: Tensor, other: Tensor, weights: Weights, name: str, heads: int) -> Tensor:
    def project(y: Tensor, part: str) -> Tensor:
        return F.linear(y, weights(f"{name}.{part}.weight"), weights(f"{name}.{part}.bias"))

    q, k, v = [
        project(y, part).unflatten(-1, (heads, -1)).transpose(1, 2)
        for y, part in ((x, "query"), (other, "key"), (other, "value"))
    ]
    scores = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1)
    return project((scores @ v).transpose(1, 2).flatten(2), "proj")


def mlp(x: Tensor, weights: Weights, convolution: bool) -> Tensor:
    def gelu2(y: Tensor) -> Tensor:
        return y * torch.sigmoid(1.702 * y)

    if not convolution:
        rise = gelu2(F.linear(x, weights("mlp.0.weight"), weights("mlp.0.bias")))
        return F.linear(rise, weights("mlp.2.weight"), weights("mlp.2.bias"))
    side = int(x.shape[1] ** 0.5)
    grid = x.transpose(1, 2).unflatten(2, (side, side))
    rise = gelu2(F.conv2d(grid, weights("mlp.conv1.weight"), weights("mlp.conv1.bias"), padding=1))
    return F.conv2d(rise, weights("mlp.conv2.weight"), weights("mlp.conv2.bias"), padding=1).flatten(2).transpose(1, 2)
