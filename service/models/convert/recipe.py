"""The official yaml of a training, held against the checkpoint: it need not be there, and nothing in it runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from service.condition import Condition
from service.errors import SetupError
from service.models.transformer import TransformerConfig

NETWORK = "diffusion_config.params.transformer_config.params"
CONTENT = "diffusion_config.params.content_emb_config.params"
TEXT = "diffusion_config.params.condition_emb_config.params"
WORDS = "condition_codec_config.params"
CODEC = "content_codec_config.params"


TUPLE = "tag:yaml.org,2002:python/tuple"


@dataclass(frozen=True)
class Recipe:
    """``fields``: what stands below model.params, with "None" as None."""

    path: Path
    fields: dict[str, Any]

    def value(self, place: str) -> Any:
        """What stands at a path of names; None where nothing does."""
        found: Any = self.fields
        for name in place.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def number(self, place: str) -> int | None:
        """A whole number, or of a grid its width."""
        found = self.value(place)
        found = found[-1] if isinstance(found, list) and found else found
        return found if isinstance(found, int) else None


def read_recipe(path: Path) -> Recipe:
    """Raises SetupError for what is no yaml of plain data, or not one of VQ-Diffusion."""
    try:
        loaded = plain_data(path.read_bytes())
    except FileNotFoundError:
        raise SetupError(f"{path}: there is no such yaml; --config can be left out") from None
    except (OSError, yaml.YAMLError) as error:
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise SetupError(f"{path} is no yaml of plain data: {problem}; nothing of it was run") from None
    fields = loaded
    for name in ("model", "params"):
        fields = fields.get(name) if isinstance(fields, dict) else None
    if not isinstance(fields, dict) or "diffusion_config" not in fields:
        raise SetupError(f"{path} has no model.params.diffusion_config: it is no yaml of a VQ-Diffusion training")
    return Recipe(path, without_none(fields))


def plain_data(text: bytes) -> Any:
    """Of a yaml that may have tuples; any other tag is an error."""
    loader = yaml.SafeLoader(text)
    loader.yaml_constructors = {**loader.yaml_constructors, TUPLE: yaml.SafeLoader.construct_yaml_seq}
    return loader.get_single_data()


def without_none(value: Any) -> Any:
    """The released files write None, which is a word in yaml."""
    if isinstance(value, dict):
        return {name: without_none(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_none(inner) for inner in value]
    return None if value == "None" else value


@dataclass(frozen=True)
class Facts:
    """What the checkpoint and the options say beside the network's config."""

    mapped: bool
    class_rows: int = 0
    """With the null, where the file has one."""
    words: int = 0
    """Of the text encoder."""
    positions: int = 0


def hold_against(recipe: Recipe, config: TransformerConfig, facts: Facts) -> None:
    """Raises SetupError for the first field that the checkpoint, or an option, contradicts."""
    for place, expected in expectations(config, facts):
        found = recipe.value(place)
        if found is not None and plain(found) not in expected:
            raise SetupError(
                f"{recipe.path}: {place} is {found}, and by the checkpoint and the options it is "
                f"{' or '.join(map(str, expected))}: it is another model's yaml, or an option is wrong"
            )


def plain(value: Any) -> Any:
    """Of a square grid its width."""
    return value[0] if isinstance(value, list) and len(set(map(str, value))) == 1 else value


def expectations(config: TransformerConfig, facts: Facts) -> Iterator[tuple[str, tuple[object, ...]]]:
    """Each field with what it may say."""
    yield "diffusion_config.params.diffusion_step", (config.timesteps,)
    yield "diffusion_config.params.alpha_init_type", ("alpha1",)
    yield f"{NETWORK}.n_layer", (config.num_layers,)
    yield f"{NETWORK}.n_embd", (config.width,)
    yield f"{NETWORK}.n_head", (config.num_attention_heads,)
    yield f"{NETWORK}.content_seq_len", (config.tokens,)
    yield f"{NETWORK}.content_spatial_size", (config.sample_size,)
    yield f"{NETWORK}.block_activate", ("GELU2",)
    yield f"{NETWORK}.mlp_type", ("conv_mlp" if config.convolution else "fc",)
    yield f"{NETWORK}.mlp_hidden_times", (4,)
    yield f"{NETWORK}.timestep_type", ("adalayernorm",)
    yield f"{CONTENT}.num_embed", (config.codes,)
    yield f"{CONTENT}.spatial_size", (config.positions,)
    yield f"{CONTENT}.pos_emb_type", ("embedding",)
    yield f"{CODEC}.token_shape", (config.sample_size,)
    yield f"{CODEC}.quantize_number", (config.codes,) if facts.mapped else (0, config.codes)
    if config.condition is Condition.TEXT:
        yield f"{NETWORK}.condition_dim", (config.text_width,)
        yield f"{TEXT}.num_embed", (facts.words,)
        yield f"{WORDS}.context_length", (facts.positions,)
        yield f"{WORDS}.pad_value", (0,)
    if config.condition is Condition.LABEL:
        # The released yaml is one too small where the file has a learned null.
        yield f"{NETWORK}.class_number", tuple(sorted({config.classes, facts.class_rows}))
