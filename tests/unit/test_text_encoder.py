"""Text encoders: padding, causality, the null row and normalisation."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from peers.random_models import randomise
from torch import Tensor, nn

from service.export.modules import script
from service.models.bert import BertText
from service.models.clip import ClipText
from service.models.registry import TEXT_ENCODERS, named
from service.models.text_encoder import TextConfig
from service.models.text_states import TextStates

BERT = TextConfig(
    vocab_size=40,
    hidden_size=24,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=12,
    layer_norm_eps=1e-12,
    hidden_act="gelu",
)
CLIP = replace(BERT, hidden_act="quick_gelu", layer_norm_eps=1e-5)
NULL = torch.randn(12, 24, generator=torch.Generator().manual_seed(9))


def encoder(config: TextConfig) -> nn.Module:
    return randomise(BertText(config) if config.hidden_act == "gelu" else ClipText(config), seed=0)


def text_states(config: TextConfig, normalize: bool) -> TextStates:
    return TextStates(encoder(config), NULL, normalize).eval()


def batch() -> tuple[Tensor, Tensor]:
    """Rows of 12, 5 and 0 tokens, INT32."""
    ids = torch.randint(1, 40, (3, 12), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    mask = (torch.arange(12) < torch.tensor([[12], [5], [0]])).int()
    return ids, mask


@pytest.mark.parametrize("config", [BERT, CLIP], ids=["bert", "clip"])
@pytest.mark.parametrize("normalize", [True, False])
def test_an_all_masked_row_gets_the_null_vectors(config: TextConfig, normalize: bool) -> None:
    ids, mask = batch()
    states = text_states(config, normalize)(ids, mask)
    assert torch.equal(states[2], NULL.half())
    assert torch.isfinite(states).all()
    assert not torch.equal(states[1], NULL.half())


@pytest.mark.parametrize("config", [BERT, CLIP], ids=["bert", "clip"])
def test_rows_do_not_touch_each_other(config: TextConfig) -> None:
    ids, mask = batch()
    served = text_states(config, normalize=True)
    together = served(ids, mask)
    for row in range(3):
        alone = served(ids[row : row + 1], mask[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], rtol=2e-3, atol=1e-3)


def test_normalised_states_have_length_one() -> None:
    ids, mask = batch()
    lengths = text_states(CLIP, normalize=True)(ids, mask)[:2].float().norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones(2, 12), rtol=2e-3, atol=2e-3)


def test_without_normalisation_padding_is_zero() -> None:
    ids, mask = batch()
    states = text_states(BERT, normalize=False)(ids, mask)
    assert bool((states[1, 5:] == 0).all())
    assert bool((states[1, :5] != 0).any(-1).all())


def test_bert_does_not_read_padding() -> None:
    ids, mask = batch()
    model, other = encoder(BERT), ids.clone()
    other[1, 5:] = 0
    torch.testing.assert_close(model(ids, mask)[1, :5], model(other, mask)[1, :5], rtol=1e-5, atol=1e-5)
    other[1, 4] = 0
    assert not torch.allclose(model(ids, mask)[1, :4], model(other, mask)[1, :4], atol=1e-3)


def test_clip_looks_back_only() -> None:
    ids, mask = batch()
    model, other = encoder(CLIP), ids.clone()
    other[0, 7] = 0
    before, after = model(ids, mask), model(other, mask)
    torch.testing.assert_close(before[0, :7], after[0, :7])
    assert not torch.allclose(before[0, 7:], after[0, 7:], atol=1e-3)


@pytest.mark.parametrize("config", [BERT, CLIP], ids=["bert", "clip"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("parts", [1, 2, 20])
def test_as_served_in_parts_it_equals_eager(config: TextConfig, normalize: bool, parts: int) -> None:
    ids, mask = batch()
    eager = text_states(config, normalize)
    served = script(eager)
    served.parts = parts
    torch.testing.assert_close(served(ids, mask), eager(ids, mask), rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "says"), [({"model_type": "t5"}, "model_type is 't5'"), ({"hidden_act": "relu"}, "hidden_act is 'relu'")]
)
def test_other_families_are_refused(change: dict[str, Any], says: str) -> None:
    config = {"model_type": "bert", **vars(BERT)}
    build = named(TEXT_ENCODERS, "model_type")
    assert build(config)[1] == BERT
    with pytest.raises(ValueError, match=says):
        build(config | change)
