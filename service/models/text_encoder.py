"""What the families of text encoders share: their config, activation and attention.

An encoder makes token ids into one state per position, for cross-attention. Parameter names are those of Hugging Face
transformers, so their safetensors load unchanged.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class TextConfig:
    """The fields of a transformers text config that these encoders honour."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    layer_norm_eps: float
    hidden_act: str

    @classmethod
    def from_transformers(cls, config: dict[str, Any]) -> "TextConfig":
        """Read a transformers ``config.json``. Raises ValueError for an activation that is not implemented."""
        act = config["hidden_act"]
        if act not in ("gelu", "quick_gelu"):
            raise ValueError(f"hidden_act is {act!r}; supported: gelu, quick_gelu")
        sizes = {k: config[k] for k in cls.__annotations__ if k != "hidden_act"}
        return cls(hidden_act=act, **sizes)


def activate(x: Tensor, quick: bool) -> Tensor:
    return x * torch.sigmoid(1.702 * x) if quick else F.gelu(x)


class Attend(nn.Module):
    """Scaled dot-product attention over [B, S, C] projections, with an additive mask."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        b, s, c = q.shape
        q, k, v = [x.reshape(b, s, self.heads, c // self.heads).transpose(1, 2) for x in (q, k, v)]
        scores = q @ k.transpose(2, 3) * (c // self.heads) ** -0.5 + mask
        return (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, s, c)
