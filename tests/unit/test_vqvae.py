"""The codec: shapes, tokens in rows, nearest codes, and what config it refuses."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from peers.random_models import randomise
from torch import nn

from service.export.modules import ImageDecoder, script
from service.models.vqvae import VQVAE, Codebook, VQConfig

CONFIG = VQConfig(
    block_out_channels=(8, 8, 16),
    num_vq_embeddings=20,
    latent_channels=6,
    vq_embed_dim=4,
    sample_size=32,
    norm_num_groups=4,
    down_attention=(False, False, True),
    up_attention=(True, False, False),
)


@pytest.fixture(scope="module")
def codec() -> VQVAE:
    return randomise(VQVAE(CONFIG), seed=0)


def test_pixels_to_tokens_and_back(codec: VQVAE) -> None:
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tokens = codec.encode(pixels)
    assert codec.width == 8
    assert tokens.shape == (2, 64)
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < CONFIG.num_vq_embeddings
    assert codec.decode(tokens).shape == pixels.shape
    assert torch.equal(codec(tokens), codec.decode(tokens))


@pytest.mark.parametrize("parts", [1, 2, 20])
def test_as_served_in_parts_it_draws_the_same(codec: VQVAE, parts: int) -> None:
    tokens = torch.randint(CONFIG.num_vq_embeddings + 1, (5, 64), generator=torch.Generator().manual_seed(0)).int()
    plain = (codec.decode(tokens.where(tokens < CONFIG.num_vq_embeddings, 0)) / 2 + 0.5).clamp(0, 1) * 255
    served = script(ImageDecoder(codec))
    served.parts = parts
    pictures = served(tokens)
    assert (pictures.dtype, pictures.shape) == (torch.uint8, (5, 32, 32, 3))
    assert float((pictures - plain.permute(0, 2, 3, 1)).abs().max()) <= 0.51


def test_tokens_lie_row_by_row(codec: VQVAE) -> None:
    """A change of the token in row 1, column 6 changes the pixels there more than far off and in row 6, column 1."""
    plain = randomise(VQVAE(replace(CONFIG, up_attention=(), mid_block_add_attention=False)), seed=1)
    tokens = torch.zeros(1, 64, dtype=torch.int64)
    changed = tokens.clone()
    changed[0, 1 * 8 + 6] = 7
    latents = plain.quantize.embedding(changed).transpose(1, 2).unflatten(2, (8, 8))
    assert torch.equal(latents[0, :, 1, 6], plain.quantize.embedding.weight[7])
    assert torch.equal(plain.decode(changed), plain.decode_latents(latents))
    difference = (plain.decode(changed) - plain.decode(tokens)).abs().sum(1)[0]
    assert float(difference[4:8, 24:28].mean()) > 5 * float(difference[28:, :4].mean())
    assert float(difference[4:8, 24:28].mean()) > 2 * float(difference[24:28, 4:8].mean())


def test_the_nearest_code_wins() -> None:
    book = Codebook(30, 5)
    latents = torch.randn(3, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    flat = latents.flatten(2).transpose(1, 2).double()
    distance = (flat[:, :, None] - book.embedding.weight.double()).square().sum(-1)
    assert torch.equal(book(latents), distance.argmin(-1))


class Encode(nn.Module):
    def __init__(self, codec: VQVAE) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.codec.encode(pixels)


@pytest.mark.parametrize("parts", [False, True], ids=["nearest code", "scores and mapping"])
def test_scripted_it_encodes_the_same(parts: bool) -> None:
    codec = randomise(VQVAE(CONFIG), seed=0)
    if parts:
        generator = torch.Generator().manual_seed(1)
        weight, bias = torch.randn(50, 4, generator=generator), torch.randn(50, generator=generator)
        codec.quantize.encode_by(weight, bias, torch.arange(50) % 20)
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = codec.encode(pixels)
    assert torch.equal(torch.jit.script(Encode(codec))(pixels), expected)
    assert not any(name.startswith("quantize.") for name in codec.state_dict() if "embedding" not in name)


def test_scores_and_mapping_choose_the_tokens() -> None:
    """Twice the codes as weights and minus their squares are the nearest of them."""
    book, more = Codebook(3, 5), torch.randn(9, 5, generator=torch.Generator().manual_seed(2))
    latents = torch.randn(3, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    mapping = torch.tensor([0, 0, 1, 0, 0, 2, 0, 1, 0])
    book.encode_by(2 * more, -more.square().sum(1), mapping)
    flat = latents.flatten(2).transpose(1, 2)
    nearest = (flat[:, :, None] - more).square().sum(-1).argmin(-1)
    assert torch.equal(book(latents), mapping[nearest])


def test_a_code_of_the_book_is_its_own_token(codec: VQVAE) -> None:
    tokens = torch.arange(16)[None]
    latents = codec.quantize.embedding(tokens).transpose(1, 2).unflatten(2, (4, 4))
    assert torch.equal(codec.quantize(latents), tokens)


def test_config_survives_both_ways() -> None:
    assert VQConfig.from_diffusers(CONFIG.to_diffusers()) == CONFIG
    small = VQConfig(block_out_channels=(8,), num_vq_embeddings=4, latent_channels=6, vq_embed_dim=4, sample_size=8)
    assert small.to_diffusers()["down_block_types"] == ["DownEncoderBlock2D"]


@pytest.mark.parametrize("change", [{"act_fn": "gelu"}, {"norm_type": "spatial"}])
def test_other_variants_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="only act_fn=silu and norm_type=group"):
        VQConfig.from_diffusers(CONFIG.to_diffusers() | change)


def test_scripted_equals_eager(codec: VQVAE) -> None:
    tokens = torch.randint(0, 20, (2, 64), generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(torch.jit.script(codec)(tokens), codec(tokens), rtol=1e-5, atol=1e-5)
