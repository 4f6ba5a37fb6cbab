"""An official checkpoint, understood: every tensor has its place, and nothing is missing, left over or contradicted."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from service.condition import Condition
from service.models.card import read_labels
from service.models.convert.checkpoint import CODEC, NETWORK, NULL, TABLES, TEXT, Checkpoint, open_checkpoint
from service.models.convert.codec import codec_parts, read_codec, read_mapping, scale_of
from service.models.convert.layout import CFG_ROWS, CLASS_TABLE, TOKEN_MASK, Given, read_network
from service.models.convert.names import network_names
from service.models.convert.parts import Part, refuse_extra, sources_for
from service.models.convert.recipe import NETWORK as NETWORK_PLACE
from service.models.convert.recipe import TEXT as TEXT_PLACE
from service.models.convert.recipe import Facts, Recipe, hold_against, read_recipe
from service.models.convert.text import null_part, text_part
from service.models.folder import NULL_FOLDER
from service.models.registry import DENOISERS, named
from service.models.transformer import TransformerConfig


@dataclass(frozen=True)
class Options:
    """What the checkpoint does not tell. None: as the yaml says, and else as in the released models."""

    mapping: Path | None = None
    tokenizer: Path | None = None
    config: Path | None = None
    labels: Path | None = None
    name: str | None = None
    given: Given = field(default_factory=Given)


@dataclass(frozen=True)
class Understood:
    checkpoint: Checkpoint
    network: TransformerConfig
    parts: list[Part]
    """The network first."""
    normalize: bool
    """Divide each text state by its norm."""
    labels: list[str]
    words: int
    """Of the text encoder; 0 without one, as are the positions."""
    positions: int

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    @property
    def null(self) -> str:
        """Where guidance gets its null from."""
        if self.network.condition is Condition.NONE:
            return "none, guidance does not apply"
        if self.network.condition is Condition.TEXT:
            return "learned" if NULL in self.checkpoint.state else "the empty prompt, as the file holds no learned one"
        classes = self.network.classes
        learned = self.checkpoint.shape(CLASS_TABLE)[0] > classes
        return f"class {classes}, learned" if learned else f"the mean of the {classes} classes"

    def __str__(self) -> str:
        c = self.network
        kind = {Condition.TEXT: "text", Condition.LABEL: f"{c.classes} classes", Condition.NONE: "no condition"}
        weights = "moving average" if self.checkpoint.averaged else "as trained, there is no moving average (ema)"
        return (
            f"{self.checkpoint.path.name}: {kind[c.condition]}; {c.num_layers} blocks of {c.width}, "
            f"{c.num_attention_heads} heads, {c.codes} codes, {c.sample_size}x{c.sample_size} tokens, "
            f"{c.timesteps} timesteps; weights: {weights}; null: {self.null}"
        )


def understand(path: Path, options: Options) -> Understood:
    """Raises SetupError naming what does not fit."""
    checkpoint = open_checkpoint(path)
    recipe = read_recipe(options.config) if options.config else None
    scale = scale_of(checkpoint)
    network = read_network(checkpoint, filled(options.given, recipe, checkpoint), scale)
    refuse_others(checkpoint, network.condition)
    mapping = read_mapping(options.mapping, checkpoint, network.codes)
    parts = [network_part(checkpoint, network), *codec_parts(checkpoint, read_codec(checkpoint, network), mapping)]
    words = positions = 0
    if network.condition is Condition.TEXT:
        parts += [text_part(checkpoint), null_part(checkpoint, NULL_FOLDER)]
        words, _ = checkpoint.shape(f"{TEXT}token_embedding.weight")
        positions, _ = checkpoint.shape(f"{TEXT}positional_embedding")
    rows = checkpoint.shape(CLASS_TABLE)[0] if network.condition is Condition.LABEL else 0
    if recipe:
        hold_against(recipe, network, Facts(mapping is not None, rows, words, positions))
    normalize = recipe is None or recipe.value(f"{TEXT_PLACE}.normalize") is not False
    labels = read_labels(options.labels, network.classes)
    return Understood(checkpoint, network, parts, normalize, labels, words, positions)


def refuse_others(checkpoint: Checkpoint, condition: Condition) -> None:
    """Raises SetupError for what belongs to no part of the model, and not to the tables of training either."""
    parts = (NETWORK, CODEC, *((TEXT,) if condition is Condition.TEXT else ()))
    refuse_extra(checkpoint, "", (NULL,), lambda name: name.startswith((*parts, *TABLES)))


def filled(given: Given, recipe: Recipe | None, checkpoint: Checkpoint) -> Given:
    """What no option says and the checkpoint does not either, from the yaml."""
    if recipe is None:
        return given
    heads, grid, classes = given.heads, given.grid, given.classes
    heads = heads or recipe.number(f"{NETWORK_PLACE}.n_head")
    if grid is None and given.size is None and TOKEN_MASK not in checkpoint.state:
        grid = recipe.number(f"{NETWORK_PLACE}.content_spatial_size")
    if classes is None and checkpoint.has(CLASS_TABLE) and checkpoint.shape(CLASS_TABLE)[0] != CFG_ROWS:
        classes = recipe.number(f"{NETWORK_PLACE}.class_number")
    return replace(given, heads=heads, grid=grid, classes=classes)


def network_part(checkpoint: Checkpoint, config: TransformerConfig) -> Part:
    """Raises SetupError for what is missing, left over, or of another shape."""
    file = config.to_diffusers()
    with torch.device("meta"):
        module = cast(nn.Module, named(DENOISERS, "_class_name")(file)[0])
    names = network_names(config)
    special = {}
    if config.condition is Condition.LABEL and checkpoint.shape(CLASS_TABLE)[0] == config.classes:
        special = {ours: with_mean for ours in names if ours.endswith("norm3.emb.weight")}
    sources = sources_for(module, names, checkpoint, special)
    refuse_extra(checkpoint, NETWORK, names.values(), lambda name: name.endswith(".attn2.mask"))
    return Part("transformer", "diffusion_pytorch_model", file, sources)


def with_mean(rows: Tensor) -> Tensor:
    """The classes and, as one more, their mean: the null of a model that has learned none."""
    return torch.cat([rows, rows.mean(0, keepdim=True)])
