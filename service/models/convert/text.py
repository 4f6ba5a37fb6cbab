"""The text encoder of an official checkpoint, CLIP's, with the vocabulary, which the checkpoint has not."""

import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from torch import Tensor

from service.errors import SetupError
from service.models.clip import ClipText
from service.models.convert.checkpoint import NULL, TEXT, Checkpoint
from service.models.convert.names import text_names
from service.models.convert.parts import Part, Source, refuse_extra, sources_for, write_json
from service.models.text_encoder import TextConfig

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
HEAD_WIDTH = 64
UNUSED = (f"{TEXT}text_projection", f"{TEXT}logit_scale")
MERGES_FILE = "bpe_simple_vocab_16e6.txt.gz"
WHERE_VOCABULARY_IS = (
    "CLIP's vocabulary is not in the checkpoint: give --tokenizer with a folder that holds vocab.json and merges.txt "
    "(the tokenizer of openai/clip-vit-base-patch32), or the file "
    f"{MERGES_FILE}, which the package open-clip-torch brings as open_clip/{MERGES_FILE} and clip-anytorch as clip/"
)


def text_part(checkpoint: Checkpoint) -> Part:
    """The text encoder. Raises SetupError naming what does not fit."""
    vocabulary, width = checkpoint.shape(f"{TEXT}token_embedding.weight", 2)
    config = TextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=checkpoint.shape(f"{TEXT}transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        num_hidden_layers=checkpoint.count(f"{TEXT}transformer.resblocks."),
        num_attention_heads=max(width // HEAD_WIDTH, 1),
        max_position_embeddings=checkpoint.shape(f"{TEXT}positional_embedding", 2)[0],
        layer_norm_eps=1e-5,
        hidden_act="quick_gelu",
    )
    names = text_names(config.num_hidden_layers)
    with torch.device("meta"):
        module = ClipText(config)
    thirds = {ours: third(number) for ours, (_, number) in names.items() if number is not None}
    official = {ours: name for ours, (name, _) in names.items()}
    sources = sources_for(module, official, checkpoint, thirds)
    refuse_extra(checkpoint, TEXT, official.values(), lambda name: name in UNUSED)
    sources = {f"text_model.{ours}": source for ours, source in sources.items()}
    return Part("text_encoder", "model", transformers_config(config), sources)


def third(number: int) -> Callable[[Tensor], Tensor]:
    """Queries, keys or values, of which the official weights are one stack."""
    return lambda stacked: stacked.chunk(3)[number].clone()


def transformers_config(config: TextConfig) -> dict[str, Any]:
    """The ``config.json`` that transformers reads, too."""
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        **vars(config),
        "bos_token_id": config.vocab_size - 2,
        "eos_token_id": config.vocab_size - 1,
        "pad_token_id": 0,
        "projection_dim": config.hidden_size,
    }


def null_part(checkpoint: Checkpoint, folder: str) -> Part:
    """The learned null, where the file holds one; otherwise a config that says that there is none."""
    config: dict[str, Any] = {"_class_name": "LearnedClassifierFreeSamplingEmbeddings", "learnable": False}
    sources: dict[str, Source] = {}
    if NULL in checkpoint.state:
        length, width = shape = checkpoint.shape(NULL, 2)
        expected = checkpoint.shape(f"{TEXT}positional_embedding")
        if shape != expected:
            checkpoint.fail(f"{NULL} has the shape {list(shape)}; its text encoder's states are {list(expected)}")
        config |= {"learnable": True, "hidden_size": width, "length": length}
        sources["embeddings"] = Source(NULL, shape)
    return Part(folder, "diffusion_pytorch_model", config, sources)


def write_tokenizer(given: Path | None, folder: Path, vocab_size: int, positions: int) -> None:
    """Write the vocabulary in the form of CLIP's own tokenizers. Raises SetupError where it is not the encoder's."""
    if given is None:
        raise SetupError(WHERE_VOCABULARY_IS)
    vocabulary, merges = read_merges(given, vocab_size) if given.is_file() else read_folder(given)
    if len(vocabulary) != vocab_size or not {BEGIN, END} <= vocabulary.keys():
        raise SetupError(
            f"{given} has {len(vocabulary)} tokens, and the checkpoint's text encoder {vocab_size}: it is another "
            f"vocabulary. {WHERE_VOCABULARY_IS}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("\n".join(("#version: 0.2", *merges)) + "\n", encoding="utf-8")
    pad = next(token for token, number in vocabulary.items() if number == 0)
    special = {"bos_token": BEGIN, "eos_token": END, "unk_token": END, "pad_token": pad}
    write_json(folder / "special_tokens_map.json", special)
    options = {"tokenizer_class": "CLIPTokenizer", "model_max_length": positions, **special}
    write_json(folder / "tokenizer_config.json", options)


def read_folder(folder: Path) -> tuple[dict[str, int], list[str]]:
    try:
        vocabulary = json.loads((folder / "vocab.json").read_bytes())
        lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise SetupError(f"{folder} holds no tokenizer: {error}. {WHERE_VOCABULARY_IS}") from None
    if not isinstance(vocabulary, dict) or sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise SetupError(f"{folder}/vocab.json does not number its tokens from 0 on. {WHERE_VOCABULARY_IS}")
    return vocabulary, [line for line in lines if line and not line.startswith("#version")]


def read_merges(file: Path, vocab_size: int) -> tuple[dict[str, int], list[str]]:
    """From CLIP's own file: of its merges those that the encoder has tokens for."""
    try:
        lines = gzip.decompress(file.read_bytes()).decode().splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise SetupError(f"{file} is no {MERGES_FILE}: {error}. {WHERE_VOCABULARY_IS}") from None
    letters = list(byte_letters())
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges = lines[1 : 1 + vocab_size - len(words) - 2]
    tokens = [*words, *(merge.replace(" ", "") for merge in merges), BEGIN, END]
    return {token: number for number, token in enumerate(tokens)}, merges


def byte_letters() -> list[str]:
    """CLIP's letter for each byte, in its order: those that print, by number, then the others."""
    printing = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [chr(byte) for byte in printing]
    letters += [chr(256 + n) for n in range(256 - len(printing))]
    assert sorted(letters) == sorted(pre_tokenizers.ByteLevel.alphabet())
    return letters
