"""Load and save a model folder: a diffusers ``VQDiffusionPipeline`` folder with a ``vqd.json`` beside it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from service.condition import Condition
from service.diffusion.samplers import SAMPLERS
from service.diffusion.step import Denoiser
from service.errors import SetupError
from service.messages import Parameters
from service.models.card import (
    LABELS_FILE,
    Card,
    folder_fingerprint,
    load_card,
    ranges_for,
    read_json,
    read_labels,
    text_folders,
)
from service.models.reading import QUIET, Reading
from service.models.registry import CODECS, DENOISERS, TEXT_ENCODERS, DenoiserConfig, named
from service.models.text_encoder import TextConfig
from service.models.text_states import TextStates
from service.models.tokenizer import load_tokenizer
from service.models.transformer import TransformerConfig, VQTransformer
from service.models.vqvae import VQVAE, VQConfig
from service.models.weight_files import forms
from service.models.weights import fill
from service.serving import ModelInfo

ENCODING_FILE = "encoding.safetensors"
"""Beside the codec's weights, where diffusers does not look."""
NULL_FOLDER = "learned_classifier_free_sampling_embeddings"
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of the VQ codec's attention layers in folders written before diffusers 0.17."""
BESIDE_TEXT = ("pooler.", "vision_model.", "visual_projection.", "text_projection.", "logit_scale")
"""What checkpoints of text encoders hold and states do not need."""
C = TypeVar("C")
SCHEDULE = {"alpha_cum_start": 0.99999, "alpha_cum_end": 9e-6, "gamma_cum_start": 9e-6, "gamma_cum_end": 0.99999}


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode, and what the service must know of it. All but the network is float32."""

    transformer: Denoiser
    vqvae: VQVAE
    text: TextStates | None
    """None, and so the tokenizer, unless text is the condition."""
    tokenizer: Tokenizer | None
    info: ModelInfo


def read_config(path: Path, parse: Callable[[dict[str, Any]], C]) -> C:
    """A config file as ``parse`` understands it; a module that it builds has shapes and no weights yet.

    Raises SetupError naming the file and the field.
    """
    config = read_json(path)
    try:
        with torch.device("meta"):
            return parse(config)
    except KeyError as error:
        raise SetupError(f"{path}: {error} is missing") from None
    except (ValueError, TypeError) as error:
        raise SetupError(f"{path}: {error}") from None


def load_transformer(folder: Path, reading: Reading) -> tuple[Denoiser, DenoiserConfig]:
    network, config = read_config(folder / "config.json", named(DENOISERS, "_class_name", "Transformer2DModel"))
    # mypy has no type that is a protocol and a module.
    fill(cast(nn.Module, network), reading.weights(folder, reading.dtype), folder)
    return network, config


def modern_name(name: str) -> str:
    """The present name of a VQ codec's parameter."""
    parts = name.split(".")
    return ".".join(OLD_ATTENTION.get(part, part) for part in parts) if "attentions" in parts else name


def load_vqvae(folder: Path, tokens: int, reading: Reading) -> tuple[VQVAE, VQConfig]:
    """The codec, with the picture's size from the number of ``tokens``: what the config says of it is often wrong."""
    build = named(CODECS, "_class_name", "VQModel")

    def sized(file: dict[str, Any]) -> tuple[VQVAE, VQConfig]:
        return build({**file, "sample_size": isqrt(tokens) * 2 ** (len(file["block_out_channels"]) - 1)})

    codec, config = read_config(folder / "config.json", sized)
    state = {modern_name(name): value for name, value in reading.weights(folder).items()}
    load_encoding(fill(codec, state, folder), folder / ENCODING_FILE)
    return codec, config


def load_encoding(codec: VQVAE, path: Path) -> None:
    """What only encoding needs, for a codec whose tokens are not the nearest codes. Raises SetupError."""
    if not path.exists():
        return
    try:
        state = load_file(path)
        weight, bias, mapping = state["weight"].float(), state["bias"].float(), state["mapping"].long()
    except (SafetensorError, KeyError, OSError) as error:
        raise SetupError(f"{path} cannot be read: {error}") from error
    codes, width = codec.quantize.embedding.weight.shape
    if weight.shape != (len(mapping), width) or bias.shape != mapping.shape or int(mapping.max()) >= codes:
        raise SetupError(f"{path} does not fit the codec of {codes} codes of {width} numbers")
    codec.quantize.encode_by(weight, bias, mapping)


def load_encoder(folder: Path, reading: Reading) -> tuple[nn.Module, TextConfig]:
    """A text encoder, without the parts of the checkpoint that only pooling or pictures need."""
    encoder, config = read_config(folder / "config.json", named(TEXT_ENCODERS, "model_type"))
    state = {name.removeprefix("text_model."): value for name, value in reading.weights(folder).items()}
    needed = {n: v for n, v in state.items() if not n.startswith(BESIDE_TEXT) and not n.endswith("position_ids")}
    return fill(encoder, needed, folder), config


def load_text(folder: Path, card: Card, reading: Reading = QUIET) -> tuple[TextStates, Tokenizer, TextConfig]:
    """The text encoder and tokenizer of a model folder, with its learned null if it has one."""
    text_folder, tokenizer_folder = text_folders(folder, card)
    encoder, config = load_encoder(text_folder, reading)
    positions = card.text_positions or config.max_position_embeddings
    if positions > config.max_position_embeddings:
        raise SetupError(f"{folder}/vqd.json: text_positions: at most {config.max_position_embeddings}, the encoder's")
    tokenizer = load_tokenizer(tokenizer_folder, positions)
    if tokenizer.get_vocab_size() > config.vocab_size:
        raise SetupError(f"{tokenizer_folder}: more tokens than the encoder's vocab_size {config.vocab_size}")
    null = load_null(folder / NULL_FOLDER, (positions, config.hidden_size), reading)
    return text_states(encoder, tokenizer, null, card.normalize_states), tokenizer, config


def text_states(encoder: nn.Module, tokenizer: Tokenizer, null: Tensor | None, normalize: bool) -> TextStates:
    """The served encoder; without a learned ``null`` [S, D] it uses the states of the empty string (zero-shot)."""
    if null is None:
        empty = tokenizer.encode("")
        ids = torch.tensor([empty.ids], dtype=torch.int32)
        mask = torch.tensor([empty.attention_mask], dtype=torch.int32)
        plain = TextStates(encoder, torch.zeros(1), normalize)
        with torch.inference_mode():
            null = plain.encode(ids, mask)[0].clone()
    return TextStates(encoder, null, normalize).eval()


def load_null(folder: Path, shape: tuple[int, int], reading: Reading) -> Tensor | None:
    """The learned null text states [S, D], or None when the model has none. Raises SetupError for another shape."""
    if not (folder / "config.json").exists() or not read_json(folder / "config.json").get("learnable"):
        reading.on_note(f"{folder.parent}: no learned null; guidance is by the empty prompt")
        return None
    if not any(forms(folder)):
        reading.on_note(f"{folder} is to hold a learned null and has no weights; guidance is by the empty prompt")
        return None
    null = reading.weights(folder).get("embeddings")
    if null is None or null.shape != shape:
        raise SetupError(f"{folder}: expected a tensor 'embeddings' of shape {list(shape)}")
    return null


def timesteps_of(config: dict[str, Any]) -> int:
    """T of a scheduler config. Raises ValueError for another schedule than the one that is implemented."""
    for name, value in SCHEDULE.items():
        if abs(config.get(name, value) - value) > 1e-9:
            raise ValueError(f"{name} is {config[name]}; only {value} is supported")
    return int(config.get("num_train_timesteps", 100))


def check_schedule(folder: Path, embeddings: int) -> int:
    """T, after checking that the network was trained for it. Raises SetupError."""
    path = folder / "scheduler" / "scheduler_config.json"
    timesteps = read_config(path, timesteps_of)
    if timesteps > embeddings:
        raise SetupError(f"{path}: num_train_timesteps is {timesteps}, but the transformer knows {embeddings}")
    return timesteps


def default_parameters(card: Card, tokens: int, guidance: bool = True) -> Parameters:
    """The card's sampling defaults with z filled in: at most 100 evaluations unless the card says otherwise."""
    given = card.defaults if guidance else card.defaults.model_copy(update={"guidance_scale": 1.0})
    refused = "tokens_per_step" in SAMPLERS[given.sampler].refuses
    z = None if refused else given.tokens_per_step or -(-tokens // 100)
    return Parameters(**{**given.model_dump(), "tokens_per_step": z}, seed=0)


def load_model(folder: Path, reading: Reading = QUIET) -> LoadedModel:
    """Load a model folder. Raises SetupError that names the file and what is wrong with it."""
    sha256 = folder_fingerprint(folder)
    card = load_card(folder)
    try:
        transformer, config = load_transformer(folder / "transformer", reading)
        vqvae, codec = load_vqvae(folder / "vqvae", config.tokens, reading)
        is_text = config.condition is Condition.TEXT
        text, tokenizer, text_config = load_text(folder, card, reading) if is_text else (None, None, None)
    except (ValueError, TypeError) as error:
        raise SetupError(f"{folder}: {error}") from error
    if config.codes != codec.num_vq_embeddings:
        raise SetupError(f"{folder}: the transformer has {config.codes} codes, the codec {codec.num_vq_embeddings}")
    positions = 0
    if text_config is not None:
        if config.text_width != text_config.hidden_size:
            raise SetupError(f"{folder}: cross_attention_dim {config.text_width} is not the text encoder's width")
        positions = card.text_positions or text_config.max_position_embeddings
    timesteps, names = check_schedule(folder, config.timesteps), folder / LABELS_FILE
    ranges, guidance = ranges_for(card, config.tokens, timesteps), config.condition is not Condition.NONE
    if not guidance:
        del ranges["guidance_scale"]
    info = ModelInfo(
        name=card.name,
        sha256=sha256,
        description=card.description,
        licence=card.licence,
        attributions=card.attributions,
        tokens=config.tokens,
        codes=config.codes,
        image_width=codec.sample_size,
        image_height=codec.sample_size,
        text_positions=positions,
        timesteps=timesteps,
        prompt_template=card.prompt_template,
        defaults=default_parameters(card, config.tokens, guidance),
        ranges=ranges,
        samplers=tuple(SAMPLERS),
        condition=config.condition,
        classes=config.classes,
        labels=tuple(read_labels(names if names.exists() else None, config.classes)),
        guidance=guidance,
    )
    return LoadedModel(transformer, vqvae, text, tokenizer, info)


def scheduler_config(network: TransformerConfig) -> dict[str, Any]:
    """``scheduler/scheduler_config.json`` of a model with this network."""
    return {
        "_class_name": "VQDiffusionScheduler",
        "num_vec_classes": network.num_vector_embeds,
        "num_train_timesteps": network.timesteps,
        **SCHEDULE,
    }


def save_part(module: nn.Module, config: dict[str, Any], folder: Path) -> None:
    """Write ``config.json`` and the weights in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    state = {name: value.half().contiguous() for name, value in module.state_dict().items()}
    save_file(state, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})


def save_model(
    folder: Path,
    card: Card,
    transformer: tuple[VQTransformer, TransformerConfig],
    vqvae: tuple[VQVAE, VQConfig],
    null: Tensor,
) -> None:
    """Write a model folder whose text encoder is the package that ``card.text`` names."""
    save_part(transformer[0], transformer[1].to_diffusers(), folder / "transformer")
    save_part(vqvae[0], vqvae[1].to_diffusers(), folder / "vqvae")
    null_config = {"learnable": True, "length": null.shape[0], "hidden_size": null.shape[1]}
    save_part(nn.ParameterDict({"embeddings": nn.Parameter(null)}), null_config, folder / NULL_FOLDER)
    (folder / "scheduler").mkdir(parents=True, exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(
        json.dumps(scheduler_config(transformer[1]), indent=2) + "\n"
    )
    index = {
        "_class_name": "VQDiffusionPipeline",
        "transformer": ["diffusers", "Transformer2DModel"],
        "vqvae": ["diffusers", "VQModel"],
        "scheduler": ["diffusers", "VQDiffusionScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    (folder / "vqd.json").write_bytes(card.model_dump_json(indent=2).encode() + b"\n")
