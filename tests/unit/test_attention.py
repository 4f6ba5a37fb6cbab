"""Attention in bfloat16, where it does without PyTorch's fused kernel."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from service.models.layers import attend

ROWS, HEADS, WIDTH = 5, 6, 32


def random(length: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(ROWS, HEADS, length, WIDTH, generator=generator).bfloat16()


@pytest.mark.parametrize(("tokens", "keys"), [(64, 64), (64, 24), (16, 7), (256, 77)])
def test_attention_is_the_same_function_in_bfloat16(tokens: int, keys: int) -> None:
    q, k, v = random(tokens, 0), random(keys, 1), random(keys, 2)
    wanted = F.scaled_dot_product_attention(q.float(), k.float(), v.float())
    assert (attend(q, k, v).float() - wanted).abs().max() < 0.03


@pytest.mark.parametrize("keys", [64, 24])
def test_no_row_sees_how_many_others_there_are(keys: int) -> None:
    q, k, v = random(64, 0), random(keys, 1), random(keys, 2)
    together = attend(q, k, v)
    for size in (1, 2, 4):
        parts = [attend(*(x[i : i + size] for x in (q, k, v))) for i in range(0, ROWS, size)]
        assert torch.equal(torch.cat(parts), together)


def test_many_scores_are_left_to_the_fused_kernel() -> None:
    q, k, v = random(64, 0), random(24, 1), random(24, 2)
    fused = F.scaled_dot_product_attention(q, k, v)
    assert not torch.equal(attend(q, k, v), fused)
    assert torch.equal(attend(q, k, v, small=64 * 24 - 1), fused)
