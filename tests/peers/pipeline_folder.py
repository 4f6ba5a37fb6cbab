"""A diffusers ``VQDiffusionPipeline`` with random weights, as a folder that diffusers itself wrote."""

import json
from pathlib import Path

from diffusers import Transformer2DModel, VQDiffusionPipeline, VQDiffusionScheduler, VQModel
from diffusers.pipelines.deprecated.vq_diffusion.pipeline_vq_diffusion import LearnedClassifierFreeSamplingEmbeddings
from peers.random_models import RELEASED_FAMILY, TEXT_POSITIONS, randomise
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = ("t h", "th e</w>", "c a", "ca t</w>", "i n", "in g</w>", "r e", "re d</w>", "1 2", "Ã ©</w>", "! !</w>")


def clip_vocabulary() -> dict[str, int]:
    """Every byte, every byte that ends a word, the results of MERGES, then the two special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = [merge.replace(" ", "") for merge in MERGES]
    words = [*alphabet, *(f"{byte}</w>" for byte in alphabet), *merged, START, END]
    return {word: i for i, word in enumerate(words)}


def write_clip_tokenizer(folder: Path, positions: int = TEXT_POSITIONS) -> None:
    """``vocab.json`` and ``merges.txt`` as in the released folders; the pad token is the one of id 0, "!"."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(clip_vocabulary()))
    (folder / "merges.txt").write_text("\n".join(("#version: 0.2", *MERGES)) + "\n")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": "!"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    options = {"tokenizer_class": "CLIPTokenizer", "model_max_length": positions, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(options))


def random_transformer(seed: int = 0) -> Transformer2DModel:
    return randomise(Transformer2DModel.from_config(RELEASED_FAMILY.to_diffusers()), seed, gain=1.5)


def random_codec(seed: int = 0) -> VQModel:
    codec = VQModel(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=8,
        sample_size=16,
        num_vq_embeddings=RELEASED_FAMILY.codes,
        norm_num_groups=8,
        vq_embed_dim=8,
    )
    return randomise(codec, seed)


def random_text_encoder(seed: int = 0) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(clip_vocabulary()),
        hidden_size=RELEASED_FAMILY.cross_attention_dim,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TEXT_POSITIONS,
        bos_token_id=clip_vocabulary()[START],
        eos_token_id=clip_vocabulary()[END],
        pad_token_id=0,
    )
    return randomise(CLIPTextModel(config), seed)


def random_null(learnable: bool, seed: int = 0) -> LearnedClassifierFreeSamplingEmbeddings:
    if not learnable:
        return LearnedClassifierFreeSamplingEmbeddings(learnable=False)
    width = RELEASED_FAMILY.cross_attention_dim
    return randomise(LearnedClassifierFreeSamplingEmbeddings(True, hidden_size=width, length=TEXT_POSITIONS), seed)


def save_pipeline(folder: Path, learnable: bool = True, seed: int = 0) -> VQDiffusionPipeline:
    """Build a pipeline (8x8 tokens of 64 codes, 16x16 pixels), save it in ``folder`` and return it.

    The tokenizer is written as ``vocab.json`` and ``merges.txt``, the form of the released folders.
    """
    write_clip_tokenizer(folder / "tokenizer")
    pipeline = VQDiffusionPipeline(
        vqvae=random_codec(seed),
        text_encoder=random_text_encoder(seed),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        transformer=random_transformer(seed),
        scheduler=VQDiffusionScheduler(num_vec_classes=RELEASED_FAMILY.num_vector_embeds),
        learned_classifier_free_sampling_embeddings=random_null(learnable, seed),
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    (folder / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)
    return pipeline
