"""The denoiser: configs, rows at their own timesteps, and attention's two paths."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from peers.random_models import RELEASED_FAMILY, TEXT_POSITIONS, randomise

from service.models.layers import AdaLayerNorm, TabulatedLayerNorm
from service.models.transformer import TransformerConfig, VQTransformer

CONFIG = RELEASED_FAMILY.to_diffusers()


@pytest.fixture(scope="module")
def model() -> VQTransformer:
    return randomise(VQTransformer(RELEASED_FAMILY), seed=0)


def inputs(rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, RELEASED_FAMILY.codes + 1, (rows, RELEASED_FAMILY.tokens), generator=generator)
    context = torch.randn(rows, TEXT_POSITIONS, RELEASED_FAMILY.cross_attention_dim, generator=generator)
    return tokens, torch.arange(rows) * 30, context


def test_config_survives_both_ways() -> None:
    assert TransformerConfig.from_diffusers(CONFIG) == RELEASED_FAMILY
    assert (RELEASED_FAMILY.width, RELEASED_FAMILY.codes, RELEASED_FAMILY.tokens) == (64, 64, 64)


def test_a_config_without_attention_bias_has_none() -> None:
    """diffusers' default."""
    config = {k: v for k, v in CONFIG.items() if k != "attention_bias"}
    assert not TransformerConfig.from_diffusers(config).attention_bias


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"activation_fn": "geglu"}, "activation_fn is 'geglu'"),
        ({"num_vector_embeds": None}, "num_vector_embeds"),
        ({"cross_attention_dim": None}, "cross_attention_dim"),
        ({"num_embeds_ada_norm": None}, "num_embeds_ada_norm"),
    ],
)
def test_other_variants_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        TransformerConfig.from_diffusers(CONFIG | change)


def test_rows_stand_at_their_own_timesteps(model: VQTransformer) -> None:
    tokens, timesteps, context = inputs(rows=4)
    together = model(tokens, timesteps, model.memory(context))
    for row in range(4):
        one = slice(row, row + 1)
        alone = model(tokens[one], timesteps[one], model.memory(context[one]))
        torch.testing.assert_close(alone, together[one], rtol=1e-4, atol=1e-4)
    same_tokens, same_text = tokens[:1].repeat(4, 1), context[:1].repeat(4, 1, 1)
    logits = model(same_tokens, timesteps, model.memory(same_text))
    assert float((logits[0] - logits[3]).abs().max()) > 1e-2, "the timestep matters"


def test_tokens_places_and_text_matter(model: VQTransformer) -> None:
    tokens, timesteps, context = inputs(rows=1)
    logits = model(tokens, timesteps, model.memory(context))
    swapped = tokens[:, torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(2))]
    moved = model(swapped, timesteps, model.memory(context))
    reworded = model(tokens, timesteps, model.memory(2 * context))
    assert float((logits - moved).abs().max()) > 1e-2
    assert float((logits - reworded).abs().max()) > 1e-2


def test_training_attention_equals_inference_attention(model: VQTransformer) -> None:
    tokens, timesteps, context = inputs(rows=2)
    expected = model(tokens, timesteps, model.memory(context))
    model.train()
    trained = model(tokens, timesteps, model.memory(context))
    model.eval()
    torch.testing.assert_close(trained, expected, rtol=1e-4, atol=1e-4)


def test_scripted_equals_eager(model: VQTransformer) -> None:
    tokens, timesteps, context = inputs(rows=2)
    scripted = torch.jit.script(model)
    expected = model(tokens, timesteps, model.memory(context))
    torch.testing.assert_close(scripted(tokens, timesteps, scripted.memory(context)), expected, rtol=1e-5, atol=1e-5)


def test_the_table_is_the_norm_and_gives_a_row_the_same_bits_in_any_batch() -> None:
    norm = randomise(AdaLayerNorm(RELEASED_FAMILY.timesteps, RELEASED_FAMILY.width), seed=0)
    table = TabulatedLayerNorm(norm)
    x = torch.randn(5, 4, RELEASED_FAMILY.width, generator=torch.Generator().manual_seed(0))
    timestep = torch.tensor([3, 99, 3, 0, 50])
    together = table(x, timestep)
    torch.testing.assert_close(together, norm(x, timestep), rtol=1e-5, atol=1e-6)
    for row in range(5):
        assert torch.equal(table(x[row : row + 1], timestep[row : row + 1])[0], together[row])


@pytest.mark.parametrize("bias", [True, False])
def test_prepared_for_inference_it_gives_the_same_logits(bias: bool) -> None:
    """What is exported has other modules than what is trained and loaded."""
    model = randomise(VQTransformer(replace(RELEASED_FAMILY, attention_bias=bias)), seed=0)
    tokens, timestep, context = inputs(3)
    with torch.inference_mode():
        before = model(tokens, timestep, model.memory(context))
    model.prepare()
    with torch.inference_mode():
        after = model(tokens, timestep, model.memory(context))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
