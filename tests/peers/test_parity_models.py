"""Parity 1 of sampling.md: our networks against diffusers' and transformers', random weights, float32."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import Transformer2DModel, VQModel
from peers.random_models import RELEASED_FAMILY, TEXT_POSITIONS, randomise
from safetensors.torch import save_file
from torch import Tensor
from transformers import BertConfig, BertModel, CLIPTextConfig, CLIPTextModel

from service.models.folder import load_encoder, load_vqvae
from service.models.reading import QUIET
from service.models.text_states import TextStates
from service.models.transformer import TransformerConfig, VQTransformer
from service.models.vqvae import VQVAE, VQConfig

# diffusers about itself, on every forward pass
pytestmark = pytest.mark.filterwarnings("ignore:`Transformer2DModelOutput` is deprecated:FutureWarning")

TOLERANCE = 1e-4
GRID, CODES = RELEASED_FAMILY.tokens, RELEASED_FAMILY.codes


def largest_gap(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max())


def same_names(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    """State dicts load strictly both ways."""
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)


def transformer_inputs(rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    tokens = torch.randint(0, CODES + 1, (rows, GRID), generator=generator)
    return tokens, torch.randn(rows, TEXT_POSITIONS, RELEASED_FAMILY.cross_attention_dim, generator=generator)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("training", [True, False], ids=["plain attention", "fused attention"])
def test_transformer_equals_diffusers(bias: bool, training: bool) -> None:
    config = RELEASED_FAMILY.to_diffusers() | {"attention_bias": bias}
    theirs = randomise(Transformer2DModel.from_config(config), seed=1)
    ours = VQTransformer(TransformerConfig.from_diffusers(dict(theirs.config)))
    same_names(ours, theirs)
    ours.train(training)
    tokens, context = transformer_inputs(rows=4)
    timesteps = torch.tensor([0, 1, 57, 99])
    expected = torch.cat([theirs(tokens[[i]], context[[i]], t).sample for i, t in enumerate(timesteps)])
    logits = ours(tokens, timesteps, ours.memory(context))
    assert logits.dtype is torch.float32
    assert largest_gap(logits.log_softmax(-1).transpose(1, 2), expected) <= TOLERANCE


@pytest.mark.filterwarnings("ignore:The configuration file of this model:FutureWarning")
def test_transformer_reads_a_config_without_norm_type() -> None:
    """Folders of 2022 do not name the norm."""
    config = {k: v for k, v in RELEASED_FAMILY.to_diffusers().items() if k not in ("_class_name", "norm_type")}
    theirs = randomise(Transformer2DModel(**config), seed=2)
    ours = VQTransformer(TransformerConfig.from_diffusers(config)).eval()
    same_names(ours, theirs)
    tokens, context = transformer_inputs(rows=1)
    expected = theirs(tokens, context, torch.tensor(3)).sample
    logits = ours(tokens, torch.tensor([3]), ours.memory(context))
    assert largest_gap(logits.log_softmax(-1).transpose(1, 2), expected) <= TOLERANCE


CODECS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two layers a block": {"layers_per_block": 2},
    "attention in a level": {
        "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"),
        "layers_per_block": 2,
    },
    "no attention in the middle": {"mid_block_add_attention": False},
    "codes as wide as latents": {"vq_embed_dim": None},
}


def diffusers_codec(**variant: Any) -> VQModel:
    given = {
        "block_out_channels": (16, 32, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "latent_channels": 12,
        "sample_size": 32,
        "num_vq_embeddings": CODES,
        "norm_num_groups": 8,
        "vq_embed_dim": 10,
    }
    return randomise(VQModel(**(given | variant)), seed=3)


@pytest.mark.parametrize("variant", CODECS.values(), ids=CODECS.keys())
def test_codec_equals_diffusers(variant: dict[str, Any]) -> None:
    theirs = diffusers_codec(**variant)
    config = VQConfig.from_diffusers(dict(theirs.config))
    ours = VQVAE(config).eval()
    same_names(ours, theirs)
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(4)) * 2 - 1
    latents = theirs.encode(pixels).latents
    assert largest_gap(ours.latents(pixels), latents) <= TOLERANCE
    tokens = theirs.quantize(latents)[2][2].reshape(2, -1)
    assert len(tokens.unique()) > 5, "the case is too easy to prove anything"
    assert torch.equal(ours.quantize(latents), tokens)
    assert torch.equal(ours.encode(pixels), tokens)
    quantised = theirs.quantize.get_codebook_entry(tokens, shape=(2, 8, 8, config.vq_embed_dim))
    decoded = theirs.decode(quantised, force_not_quantize=True).sample
    assert largest_gap(ours.decode(tokens), decoded) <= TOLERANCE
    assert VQConfig.from_diffusers(config.to_diffusers()) == config


def test_codec_reads_old_attention_names(tmp_path: Path) -> None:
    theirs = diffusers_codec(**CODECS["attention in a level"])
    old = {"to_q": "query", "to_k": "key", "to_v": "value"}
    state = {}
    for name, value in theirs.state_dict().items():
        parts = [old.get(part, part) for part in name.replace("to_out.0", "proj_attn").split(".")]
        state[".".join(parts)] = value
    assert any("query" in name for name in state)
    save_file(state, tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**theirs.config, "_class_name": "VQModel"}))
    ours, _ = load_vqvae(tmp_path, 64, QUIET)
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def padded_batch(vocabulary: int) -> tuple[Tensor, Tensor]:
    """Ids and mask of rows with 16, 9 and 1 tokens."""
    ids = torch.randint(1, vocabulary, (3, TEXT_POSITIONS), generator=torch.Generator().manual_seed(5))
    mask = (torch.arange(TEXT_POSITIONS) < torch.tensor([[16], [9], [1]])).int()
    return ids * mask, mask


def small_bert(act: str) -> BertModel:
    config = BertConfig(
        vocab_size=50,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=32,
        hidden_act=act,
    )
    return BertModel(config)


@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
def test_bert_equals_transformers(tmp_path: Path, act: str) -> None:
    theirs = randomise(small_bert(act), seed=6)
    theirs.save_pretrained(tmp_path)
    ours, _ = load_encoder(tmp_path, QUIET)
    ids, mask = padded_batch(50)
    expected = theirs(input_ids=ids, attention_mask=mask).last_hidden_state
    assert largest_gap(ours(ids, mask), expected) <= TOLERANCE


@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
def test_clip_equals_transformers(tmp_path: Path, act: str) -> None:
    config = CLIPTextConfig(
        vocab_size=50,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TEXT_POSITIONS,
        hidden_act=act,
        pad_token_id=0,
        bos_token_id=48,
        eos_token_id=49,
    )
    theirs = randomise(CLIPTextModel(config), seed=7)
    theirs.save_pretrained(tmp_path)
    ours, _ = load_encoder(tmp_path, QUIET)
    ids, mask = padded_batch(50)
    # The released pipeline reads the padding: it passes no mask.
    expected = theirs(input_ids=ids).last_hidden_state
    assert largest_gap(ours(ids, mask), expected) <= TOLERANCE
    short = ids[:, :9]
    assert largest_gap(ours(short, mask[:, :9]), theirs(input_ids=short).last_hidden_state) <= TOLERANCE


@pytest.mark.parametrize("normalize", [True, False])
def test_text_states_normalise_as_the_pipeline_does(tmp_path: Path, normalize: bool) -> None:
    theirs = randomise(small_bert("gelu"), seed=8)
    theirs.save_pretrained(tmp_path)
    encoder, _ = load_encoder(tmp_path, QUIET)
    ids, mask = padded_batch(50)
    expected = theirs(input_ids=ids, attention_mask=mask).last_hidden_state
    expected = expected / expected.norm(dim=-1, keepdim=True) if normalize else expected * mask[:, :, None]
    states = TextStates(encoder, torch.zeros(TEXT_POSITIONS, 48), normalize)(ids, mask)
    assert states.dtype is torch.float16
    torch.testing.assert_close(states.float(), expected, rtol=1e-3, atol=1e-3)
