"""VQ-Diffusion's denoisers: x_t, timestep and a condition to logits of x_0.

Parameter names are those of diffusers' ``Transformer2DModel`` with discrete input, so a state dict of either loads in
the other; diffusers has no networks for classes or without a condition, and none with a convolution. Rows of a batch
may stand at different timesteps.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from service.condition import Condition
from service.models.layers import (
    AdaLayerNorm,
    Attention,
    FeedForward,
    FoldedFeedForward,
    FusedSelfAttention,
    PaddedLinear,
    TabulatedLayerNorm,
    TokenEmbedding,
)

DIFFUSERS = "Transformer2DModel"
CLASS_NAMES = {
    Condition.TEXT: "VQTextTransformer2DModel",
    Condition.LABEL: "VQClassTransformer2DModel",
    Condition.NONE: "VQUnconditionalTransformer2DModel",
}
"""Of the networks that diffusers has not."""


@dataclass(frozen=True)
class TransformerConfig:
    """The fields of a diffusers ``Transformer2DModel`` config that this module honours, and some that it has not.

    ``sample_size`` is the width of the token grid.
    """

    num_attention_heads: int
    attention_head_dim: int
    num_layers: int
    cross_attention_dim: int
    """0: no text."""
    sample_size: int
    num_vector_embeds: int
    num_embeds_ada_norm: int
    attention_bias: bool = True
    num_classes: int = 0
    """Without the null, which is one class more; 0: no classes."""
    position_size: int = 0
    """Width of the table of positions; 0: the token grid's."""
    convolution: bool = False
    """The MLP is of 3x3 convolutions."""

    @property
    def width(self) -> int:
        return self.num_attention_heads * self.attention_head_dim

    @property
    def codes(self) -> int:
        """K: one vector less than there are embeddings, the last being the mask."""
        return self.num_vector_embeds - 1

    @property
    def tokens(self) -> int:
        return self.sample_size**2

    @property
    def condition(self) -> Condition:
        if self.cross_attention_dim:
            return Condition.TEXT
        return Condition.LABEL if self.num_classes else Condition.NONE

    @property
    def text_width(self) -> int:
        return self.cross_attention_dim

    @property
    def classes(self) -> int:
        return self.num_classes

    @property
    def timesteps(self) -> int:
        return self.num_embeds_ada_norm

    @property
    def positions(self) -> int:
        return self.position_size or self.sample_size

    @property
    def class_name(self) -> str:
        ours = self.convolution or self.positions != self.sample_size or self.condition is not Condition.TEXT
        return CLASS_NAMES[self.condition] if ours else DIFFUSERS

    @classmethod
    def from_diffusers(cls, config: dict[str, Any]) -> "TransformerConfig":
        """Read a ``transformer/config.json``. Raises ValueError for a variant that is not implemented."""
        activation = config.get("activation_fn", "geglu")
        if activation != "geglu-approximate":
            raise ValueError(f"activation_fn is {activation!r}; supported: geglu-approximate")
        kind = config.get("_class_name", DIFFUSERS)
        needed = ["num_vector_embeds", "sample_size", "num_embeds_ada_norm"]
        needed += ["cross_attention_dim"] if kind in (DIFFUSERS, CLASS_NAMES[Condition.TEXT]) else []
        needed += ["num_classes"] if kind == CLASS_NAMES[Condition.LABEL] else []
        for name in needed:
            if not config.get(name):
                raise ValueError(f"{name} is needed by a discrete {kind}")
        read = cls(
            num_attention_heads=config["num_attention_heads"],
            attention_head_dim=config["attention_head_dim"],
            num_layers=config["num_layers"],
            cross_attention_dim=config.get("cross_attention_dim") or 0,
            sample_size=config["sample_size"],
            num_vector_embeds=config["num_vector_embeds"],
            num_embeds_ada_norm=config["num_embeds_ada_norm"],
            attention_bias=config.get("attention_bias", False),
            num_classes=config.get("num_classes") or 0,
            position_size=config.get("position_size") or 0,
            convolution=config.get("convolution", False),
        )
        if read.positions < read.sample_size:
            raise ValueError(f"position_size is {read.positions}, less than sample_size {read.sample_size}")
        return read

    def to_diffusers(self) -> dict[str, Any]:
        """The ``transformer/config.json``: diffusers' fields, and of ours those that are not as in diffusers."""
        config: dict[str, Any] = {
            "_class_name": self.class_name,
            "activation_fn": "geglu-approximate",
            "norm_type": "ada_norm",
            "attention_bias": self.attention_bias,
            "attention_head_dim": self.attention_head_dim,
            "num_attention_heads": self.num_attention_heads,
            "num_embeds_ada_norm": self.num_embeds_ada_norm,
            "num_layers": self.num_layers,
            "num_vector_embeds": self.num_vector_embeds,
            "sample_size": self.sample_size,
        }
        own = ("cross_attention_dim", "num_classes", "position_size", "convolution")
        return config | {name: value for name in own if (value := getattr(self, name))}


class Block(nn.Module):
    """Self-attention, cross-attention to the text, MLP."""

    def __init__(self, c: TransformerConfig) -> None:
        super().__init__()
        self.norm1 = AdaLayerNorm(c.timesteps, c.width)
        self.attn1 = Attention(c.width, c.num_attention_heads, c.width, c.attention_bias)
        self.norm2 = AdaLayerNorm(c.timesteps, c.width)
        self.attn2 = Attention(c.width, c.num_attention_heads, c.cross_attention_dim, c.attention_bias)
        self.norm3 = nn.LayerNorm(c.width)
        self.ff = FeedForward(c.width, c.convolution)

    def memory(self, context: Tensor) -> tuple[Tensor, Tensor]:
        return self.attn2.memory(context)

    def forward(self, x: Tensor, timestep: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = x + self.attn1.own(self.norm1(x, timestep))
        x = x + self.attn2(self.norm2(x, timestep), k, v)
        return x + self.ff(self.norm3(x))


class ClassBlock(nn.Module):
    """Self-attention, then an MLP behind a norm whose scale and shift are those of the class."""

    def __init__(self, c: TransformerConfig) -> None:
        super().__init__()
        self.norm1 = AdaLayerNorm(c.timesteps, c.width)
        self.attn1 = Attention(c.width, c.num_attention_heads, c.width, c.attention_bias)
        self.norm3 = AdaLayerNorm(c.classes + 1, c.width)
        self.ff = FeedForward(c.width, c.convolution)

    def memory(self, label: Tensor) -> Tensor:
        return self.norm3.modulation(label)[:, :, None]

    def forward(self, x: Tensor, timestep: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        x = x + self.attn1.own(self.norm1(x, timestep))
        return x + self.ff(self.norm3.apply_to(x, scale, shift))


class PlainBlock(nn.Module):
    """Self-attention, MLP; nothing but the timestep has a say."""

    def __init__(self, c: TransformerConfig) -> None:
        super().__init__()
        self.norm1 = AdaLayerNorm(c.timesteps, c.width)
        self.attn1 = Attention(c.width, c.num_attention_heads, c.width, c.attention_bias)
        self.norm3 = nn.LayerNorm(c.width)
        self.ff = FeedForward(c.width, c.convolution)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        x = x + self.attn1.own(self.norm1(x, timestep))
        return x + self.ff(self.norm3(x))


class VQTransformer(nn.Module):
    """Tokens INT [B, L] with mask K, timestep INT [B], text memory → logits float32 [B, L, K]."""

    block: type[nn.Module] = Block

    def __init__(self, c: TransformerConfig) -> None:
        super().__init__()
        self.latent_image_embedding = TokenEmbedding(c.num_vector_embeds, c.positions, c.width)
        self.transformer_blocks = nn.ModuleList([self.block(c) for _ in range(c.num_layers)])
        self.norm_out = nn.LayerNorm(c.width)
        self.out: nn.Linear | PaddedLinear = nn.Linear(c.width, c.codes)

    def prepare(self) -> None:
        """Make ready for inference, and for that alone: embeddings of timesteps and classes as tables, fused products.

        A row's bits do not depend on its batch then.
        """
        for block in self.transformer_blocks:
            for name, norm in list(block.named_children()):
                if isinstance(norm, AdaLayerNorm):
                    setattr(block, name, TabulatedLayerNorm(norm))
            block.attn1 = FusedSelfAttention(block.attn1)  # type: ignore[arg-type]
            block.ff = FoldedFeedForward(block.ff)  # type: ignore[arg-type]
        assert isinstance(self.out, nn.Linear)
        self.out = PaddedLinear(self.out)

    @torch.jit.export
    def memory(self, condition: Tensor) -> Tensor:
        """Keys and values of every block for text states [B, S, D]: [blocks, 2, B, heads, S, d]. Independent of t."""
        condition = condition.to(self.out.weight.dtype)
        # A ModuleList does not tell mypy what it holds.
        pairs = [torch.stack(block.memory(condition)) for block in self.transformer_blocks]  # type: ignore[operator]
        return torch.stack(pairs)

    def forward(self, tokens: Tensor, timestep: Tensor, memory: Tensor) -> Tensor:
        x = self.latent_image_embedding(tokens)
        for i, block in enumerate(self.transformer_blocks):
            x = block(x, timestep, memory[i, 0], memory[i, 1])
        return self.out(self.norm_out(x)).float()


class ClassTransformer(VQTransformer):
    """Conditioned on a class; the null is the class ``num_classes``."""

    block = ClassBlock

    @torch.jit.export
    def memory(self, condition: Tensor) -> Tensor:
        """1 + scale and shift of every block for labels INT64 [B]: [blocks, 2, B, 1, 1, C]."""
        found = [block.memory(condition) for block in self.transformer_blocks]  # type: ignore[operator]
        return torch.stack(found)

    def forward(self, tokens: Tensor, timestep: Tensor, memory: Tensor) -> Tensor:
        x = self.latent_image_embedding(tokens)
        for i, block in enumerate(self.transformer_blocks):
            x = block(x, timestep, memory[i, 0, :, 0], memory[i, 1, :, 0])
        return self.out(self.norm_out(x)).float()


class PlainTransformer(VQTransformer):
    """Conditioned on nothing."""

    block = PlainBlock

    @torch.jit.export
    def memory(self, condition: Tensor) -> Tensor:
        """Zeros [1, 1, B, 1, 1, 1], whatever the labels INT64 [B]."""
        return torch.zeros([1, 1, condition.shape[0], 1, 1, 1], dtype=self.out.weight.dtype, device=condition.device)

    def forward(self, tokens: Tensor, timestep: Tensor, memory: Tensor) -> Tensor:
        x = self.latent_image_embedding(tokens)
        for block in self.transformer_blocks:
            x = block(x, timestep)
        return self.out(self.norm_out(x)).float()
