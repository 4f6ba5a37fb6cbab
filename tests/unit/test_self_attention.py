"""The denoisers that diffusers has not: of classes, of nothing, and of text with a convolution or a larger table."""

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from peers.random_models import RELEASED_FAMILY, TEXT_POSITIONS, randomise
from torch import Tensor, nn
from torch.nn import functional as F

from service.condition import Condition
from service.diffusion.step import Denoiser
from service.models.layers import GridConv
from service.models.registry import DENOISERS, named
from service.models.transformer import ClassTransformer, PlainTransformer, TransformerConfig, VQTransformer

CLASSES = replace(
    RELEASED_FAMILY, cross_attention_dim=0, num_classes=10, sample_size=4, position_size=8, convolution=True
)
PLAIN = replace(CLASSES, num_classes=0)
TEXT = replace(RELEASED_FAMILY, sample_size=4, position_size=8, convolution=True)
CONFIGS = {"class": CLASSES, "plain": PLAIN, "text": TEXT, "class, linear": replace(CLASSES, convolution=False)}
ROWS = 5


def make(config: TransformerConfig, seed: int = 0) -> nn.Module:
    network, read = named(DENOISERS, "_class_name")(config.to_diffusers())
    assert read == config
    return randomise(cast(nn.Module, network), seed)


def condition(config: TransformerConfig) -> Tensor:
    """Of every row another one; of classes the last is the null."""
    if config.condition is Condition.TEXT:
        return torch.randn(
            ROWS, TEXT_POSITIONS, config.cross_attention_dim, generator=torch.Generator().manual_seed(3)
        ).half()
    return torch.tensor([0, 3, config.classes - 1, 7, config.classes])


def inputs(config: TransformerConfig) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, config.codes + 1, (ROWS, config.tokens), generator=generator)
    return tokens, torch.tensor([3, 99, 3, 0, 50]), condition(config)


@pytest.mark.parametrize(
    ("config", "kind", "name"),
    [
        (CLASSES, ClassTransformer, "VQClassTransformer2DModel"),
        (PLAIN, PlainTransformer, "VQUnconditionalTransformer2DModel"),
        (TEXT, VQTransformer, "VQTextTransformer2DModel"),
        (replace(TEXT, convolution=False), VQTransformer, "VQTextTransformer2DModel"),
        (RELEASED_FAMILY, VQTransformer, "Transformer2DModel"),
    ],
)
def test_a_config_names_the_network_that_it_is_of(config: TransformerConfig, kind: type[nn.Module], name: str) -> None:
    assert config.to_diffusers()["_class_name"] == name
    assert type(make(config)) is kind


@pytest.mark.parametrize(
    ("config", "change", "says"),
    [
        (CLASSES, {"num_classes": None}, "num_classes is needed"),
        (TEXT, {"cross_attention_dim": None}, "cross_attention_dim is needed"),
        (PLAIN, {"position_size": 3}, "position_size is 3, less than sample_size 4"),
    ],
)
def test_configs_that_cannot_be_are_refused(config: TransformerConfig, change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        TransformerConfig.from_diffusers(config.to_diffusers() | change)


def test_conditions_and_sizes_are_told() -> None:
    assert [c.condition for c in (CLASSES, PLAIN, TEXT)] == [Condition.LABEL, Condition.NONE, Condition.TEXT]
    assert [(c.classes, c.text_width, c.tokens) for c in (CLASSES, PLAIN, TEXT)] == [
        (10, 0, 16),
        (0, 0, 16),
        (0, 48, 16),
    ]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_the_memory_has_six_dimensions_and_the_rows_in_the_third(config: TransformerConfig) -> None:
    network = cast(Denoiser, make(config))
    memory = network.memory(condition(config))
    assert (memory.dim(), memory.shape[2]) == (6, ROWS)
    if config.condition is Condition.LABEL:
        assert memory.shape == (config.num_layers, 2, ROWS, 1, 1, config.width)
    if config.condition is Condition.NONE:
        assert torch.equal(memory, torch.zeros(1, 1, ROWS, 1, 1, 1))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_prepared_and_scripted_it_gives_the_same_logits(config: TransformerConfig) -> None:
    tokens, timestep, given = inputs(config)
    network = make(config)
    with torch.inference_mode():
        expected = network(tokens, timestep, cast(Denoiser, network).memory(given))
        cast(Denoiser, network).prepare()
        scripted = torch.jit.script(network)
        found = scripted(tokens, timestep, scripted.memory(given))
    assert expected.shape == (ROWS, config.tokens, config.codes)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_prepared_it_gives_a_row_the_same_bits_in_any_batch(config: TransformerConfig) -> None:
    tokens, timestep, given = inputs(config)
    network = make(config)
    cast(Denoiser, network).prepare()
    with torch.inference_mode():
        memory = cast(Denoiser, network).memory(given)
        together = network(tokens, timestep, memory)
        for row in range(ROWS):
            one = slice(row, row + 1)
            assert torch.equal(network(tokens[one], timestep[one], memory[:, :, one])[0], together[row]), row


def test_the_class_matters_and_the_null_is_a_class_of_its_own() -> None:
    network = cast(ClassTransformer, make(CLASSES))
    tokens = inputs(CLASSES)[0][:1].expand(ROWS, -1)
    logits = network(tokens, torch.full((ROWS,), 50), network.memory(condition(CLASSES)))
    apart = (logits[:, None] - logits[None]).abs().amax((2, 3))
    assert float(apart[~torch.eye(ROWS, dtype=torch.bool)].min()) > 1e-2
    with pytest.raises(IndexError):
        network.memory(torch.tensor([CLASSES.classes + 1]))


def test_without_a_condition_labels_do_not_matter() -> None:
    network = cast(PlainTransformer, make(PLAIN))
    tokens, timestep, labels = inputs(PLAIN)
    assert torch.equal(
        network(tokens, timestep, network.memory(labels)), network(tokens, timestep, network.memory(0 * labels))
    )


def test_positions_are_the_first_entries_of_the_larger_table() -> None:
    network = cast(PlainTransformer, make(PLAIN))
    places = network.latent_image_embedding
    tokens = inputs(PLAIN)[0]
    found = places(tokens) - places.emb(tokens)
    for i in range(PLAIN.tokens):
        expected = places.height_emb.weight[i // 8] + places.width_emb.weight[i % 8]
        torch.testing.assert_close(found[0, i], expected)


@pytest.mark.parametrize("width", [8, 600], ids=["one product", "a convolution"])
def test_the_convolution_is_over_the_grid_row_by_row(width: int) -> None:
    layer = randomise(GridConv(width, 5), seed=0)
    x = torch.randn(2, 36, width, generator=torch.Generator().manual_seed(0))
    plain = F.conv2d(x.reshape(2, 6, 6, width).permute(0, 3, 1, 2), layer.weight, layer.bias, padding=1)
    assert (36 * width > GridConv.small) == (width == 600)
    torch.testing.assert_close(layer(x), plain.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-4)
