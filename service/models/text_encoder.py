"""What the families of text encoders share: their config, activation and attention.

An encoder makes token ids into one state per position, for cross-attention. Parameter names are those of Hugging Face
transformers, so their safetensors load unchanged.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLIP_USUAL = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "layer_norm_eps": 1e-5,
    "hidden_act": "quick_gelu",
}
"""What transformers takes where a CLIP config is silent."""


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

    @classmethod
    def from_clip(cls, config: dict[str, Any]) -> "TextConfig":
        """The same of a CLIP text model, or of a whole CLIP, whose config has that of its text model inside."""
        return cls.from_transformers({**CLIP_USUAL, **config.get("text_config", config)})


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
