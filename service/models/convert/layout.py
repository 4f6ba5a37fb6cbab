"""What an official checkpoint says of its network: read off names and shapes, the rest given by options."""

from dataclasses import dataclass
from math import isqrt

import torch

from service.condition import Condition
from service.diffusion.schedule import ALPHA_BAR, GAMMA_BAR
from service.models.convert.checkpoint import NETWORK, TEXT, Checkpoint
from service.models.transformer import TransformerConfig

BLOCK = f"{NETWORK}blocks.0."
CLASS_TABLE, TOKEN_MASK = f"{BLOCK}ln2.emb.weight", f"{BLOCK}attn2.mask"
HEADS = 16
GRID = {Condition.TEXT: 32, Condition.LABEL: 16, Condition.NONE: 16}
"""Of the released models, of which the checkpoints do not tell."""
CFG_ROWS = 1001
"""Rows of a table of ImageNet's 1,000 classes and their learned null."""
SCHEDULE_TOLERANCE = 1e-4
"""The buffers went through the moving average of the weights."""


@dataclass(frozen=True)
class Given:
    """What the options say, and else the yaml; None: neither does."""

    heads: int | None = None
    grid: int | None = None
    size: int | None = None
    """Width of the picture."""
    classes: int | None = None


def read_network(checkpoint: Checkpoint, given: Given, scale: int) -> TransformerConfig:
    """The network's config; ``scale``: pixels per token and side. Raises SetupError naming what does not fit."""
    codes, width = checkpoint.shape(f"{NETWORK}content_emb.emb.weight", 2)
    condition = condition_of(checkpoint)
    table = table_of(checkpoint)
    grid = grid_of(checkpoint, given, condition, scale)
    if grid > table:
        checkpoint.fail(f"{grid}x{grid} tokens do not fit its {table}x{table} table of positions: give --grid")
    heads = given.heads or HEADS
    if width % heads:
        checkpoint.fail(f"{heads} heads do not divide its width {width}: give --heads, the yaml's n_head")
    is_text = condition is Condition.TEXT
    return TransformerConfig(
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        num_layers=checkpoint.count(f"{NETWORK}blocks."),
        cross_attention_dim=checkpoint.shape(f"{BLOCK}attn2.key.weight", 2)[1] if is_text else 0,
        sample_size=grid,
        num_vector_embeds=codes,
        num_embeds_ada_norm=timesteps_of(checkpoint),
        num_classes=classes_of(checkpoint, given) if condition is Condition.LABEL else 0,
        position_size=0 if table == grid else table,
        convolution=checkpoint.has(f"{BLOCK}mlp.conv1."),
    )


def condition_of(checkpoint: Checkpoint) -> Condition:
    """By the kind of block."""
    if checkpoint.has(f"{BLOCK}attn2."):
        if not checkpoint.has(TEXT):
            checkpoint.fail(f"the text encoder ({TEXT}*) is missing; this is not the whole checkpoint")
        return Condition.TEXT
    return Condition.LABEL if checkpoint.has(CLASS_TABLE) else Condition.NONE


def table_of(checkpoint: Checkpoint) -> int:
    """Width of the table of positions."""
    sides = [checkpoint.shape(f"{NETWORK}content_emb.{name}_emb.weight", 2)[0] for name in ("height", "width")]
    height, width = sides
    if height != width:
        checkpoint.fail(f"its table of positions is {height}x{width}; only square ones are supported")
    return width


def grid_of(checkpoint: Checkpoint, given: Given, condition: Condition, scale: int) -> int:
    """Width of the token grid: of the mask that text models carry, else as given, else as released."""
    wanted = given.grid
    if given.size is not None:
        if given.size % scale or wanted not in (None, given.size // scale):
            checkpoint.fail(
                f"pictures of {given.size} pixels do not go with its codec, which makes {scale} of a token"
                + (f", and with a grid of {wanted}" if wanted else "")
                + ": correct --size or --grid"
            )
        wanted = given.size // scale
    if TOKEN_MASK not in checkpoint.state:
        return wanted or GRID[condition]
    tokens = checkpoint.shape(TOKEN_MASK, 4)[-1]
    told = isqrt(tokens)
    if told**2 != tokens or wanted not in (None, told):
        checkpoint.fail(f"its attn2.mask is of {tokens} tokens, not of a grid of {wanted or told}: give --grid")
    return told


def classes_of(checkpoint: Checkpoint, given: Given) -> int:
    """Without the null. ImageNet's 1,001 rows have it as the last; of another number of rows somebody must say so."""
    rows = checkpoint.shape(CLASS_TABLE, 2)[0]
    if given.classes is None:
        return rows - 1 if rows == CFG_ROWS else rows
    if given.classes not in (rows, rows - 1):
        checkpoint.fail(f"{given.classes} classes do not go with its {rows} rows of classes: correct --classes")
    return given.classes


def timesteps_of(checkpoint: Checkpoint) -> int:
    """T, of the one schedule that is implemented. Raises SetupError for another one."""
    timesteps = checkpoint.shape(f"{BLOCK}ln1.emb.weight", 2)[0]
    for name, (first, last) in (("at", ALPHA_BAR), ("ct", GAMMA_BAR)):
        key = f"log_cumprod_{name}"
        (entries,) = checkpoint.shape(key, 1)
        if entries != timesteps + 1:
            checkpoint.fail(f"{key} is of {entries - 1} timesteps, the network of {timesteps}")
        found = checkpoint.state[key][:-1].double().exp()
        expected = torch.linspace(first, last, timesteps, dtype=torch.float64)
        if not bool(((found - expected).abs() <= SCHEDULE_TOLERANCE).all()):
            checkpoint.fail(f"{key} is not of the schedule alpha1 (alpha_init_type); only that one is supported")
    return timesteps
