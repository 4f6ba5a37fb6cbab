"""VQ-Diffusion's denoiser: x_t, timestep and text states to logits of x_0.

Parameter names are those of diffusers' ``Transformer2DModel`` with discrete input, so a state dict of either loads in
the other. Rows of a batch may stand at different timesteps.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class TransformerConfig:
    """The fields of a diffusers ``Transformer2DModel`` config that this module honours."""

    num_attention_heads: int
    attention_head_dim: int
    num_layers: int
    cross_attention_dim: int
    sample_size: int
    num_vector_embeds: int
    num_embeds_ada_norm: int
    attention_bias: bool = True

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
    def text_width(self) -> int:
        return self.cross_attention_dim

    @property
    def timesteps(self) -> int:
        return self.num_embeds_ada_norm

    @classmethod
    def from_diffusers(cls, config: dict[str, Any]) -> "TransformerConfig":
        """Read a diffusers ``transformer/config.json``. Raises ValueError for a variant that is not implemented."""
        activation = config.get("activation_fn", "geglu")
        if activation != "geglu-approximate":
            raise ValueError(f"activation_fn is {activation!r}; supported: geglu-approximate")
        for name in ("num_vector_embeds", "sample_size", "cross_attention_dim", "num_embeds_ada_norm"):
            if not config.get(name):
                raise ValueError(f"{name} is needed; only text-conditional discrete models")
        return cls(
            num_attention_heads=config["num_attention_heads"],
            attention_head_dim=config["attention_head_dim"],
            num_layers=config["num_layers"],
            cross_attention_dim=config["cross_attention_dim"],
            sample_size=config["sample_size"],
            num_vector_embeds=config["num_vector_embeds"],
            num_embeds_ada_norm=config["num_embeds_ada_norm"],
            attention_bias=config.get("attention_bias", False),
        )

    def to_diffusers(self) -> dict[str, Any]:
        """The ``transformer/config.json`` that diffusers reads."""
        return {
            "_class_name": "Transformer2DModel",
            "activation_fn": "geglu-approximate",
            "norm_type": "ada_norm",
            "attention_bias": self.attention_bias,
            "attention_head_dim": self.attention_head_dim,
            "cross_attention_dim": self.cross_attention_dim,
            "num_attention_heads": self.num_attention_heads,
            "num_embeds_ada_norm": self.num_embeds_ada_norm,
            "num_layers": self.num_layers,
            "num_vector_embeds": self.num_vector_embeds,
            "sample_size": self.sample_size,
        }


class TokenEmbedding(nn.Module):
    """Embedding of the code (or mask) plus embeddings of its row and column."""

    def __init__(self, c: TransformerConfig) -> None:
        super().__init__()
        self.emb = nn.Embedding(c.num_vector_embeds, c.width)
        self.height_emb = nn.Embedding(c.sample_size, c.width)
        self.width_emb = nn.Embedding(c.sample_size, c.width)

    def forward(self, tokens: Tensor) -> Tensor:
        grid = self.height_emb.weight[:, None] + self.width_emb.weight[None]
        return self.emb(tokens) + grid.flatten(0, 1)[: tokens.shape[1]]


class AdaLayerNorm(nn.Module):
    """LayerNorm whose scale and shift come from a learned embedding of each row's timestep."""

    def __init__(self, c: TransformerConfig) -> None:
        super().__init__()
        self.emb = nn.Embedding(c.num_embeds_ada_norm, c.width)
        self.linear = nn.Linear(c.width, 2 * c.width)
        self.norm = nn.LayerNorm(c.width, elementwise_affine=False)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        scale, shift = self.linear(F.silu(self.emb(timestep)))[:, None].chunk(2, -1)
        return self.norm(x) * (1 + scale) + shift


class TabulatedLayerNorm(nn.Module):
    """An AdaLayerNorm with scale and shift of every timestep worked out beforehand.

    Not only faster: a product of one row sums in another order than one of several rows, and that was the one thing
    that let the bits of a row depend on how many others were in its batch.
    """

    table: Tensor

    def __init__(self, norm: AdaLayerNorm) -> None:
        super().__init__()
        with torch.no_grad():
            scale, shift = norm.linear(F.silu(norm.emb.weight)).chunk(2, -1)
            self.register_buffer("table", torch.stack([1 + scale, shift]))
        self.norm = norm.norm

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        scale, shift = self.table[:, timestep, None].unbind(0)
        return torch.addcmul(shift, self.norm(x), scale)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, L, C] to [B, heads, L, C / heads]."""
    return x.unflatten(-1, (heads, x.shape[-1] // heads)).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head attention; keys and values are made by ``memory`` so that they can be kept between calls."""

    def __init__(self, c: TransformerConfig, memory_width: int) -> None:
        super().__init__()
        self.heads = c.num_attention_heads
        self.to_q = nn.Linear(c.width, c.width, bias=c.attention_bias)
        self.to_k = nn.Linear(memory_width, c.width, bias=c.attention_bias)
        self.to_v = nn.Linear(memory_width, c.width, bias=c.attention_bias)
        self.to_out = nn.ModuleList([nn.Linear(c.width, c.width)])

    def memory(self, states: Tensor) -> tuple[Tensor, Tensor]:
        return split_heads(self.to_k(states), self.heads), split_heads(self.to_v(states), self.heads)

    def own(self, x: Tensor) -> Tensor:
        """Self-attention."""
        k, v = self.memory(x)
        return self(x, k, v)

    def forward(self, x: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q = split_heads(self.to_q(x), self.heads)
        if self.training:  # on CPU the backward of the fused kernel is slower than plain matmuls
            y = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        return self.to_out[0](y.transpose(1, 2).flatten(2))


class FusedSelfAttention(nn.Module):
    """An ``Attention`` to itself, with queries, keys and values from one product instead of three."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        parts = (attention.to_q, attention.to_k, attention.to_v)
        fused = {name: torch.cat([part.state_dict()[name] for part in parts]) for name in parts[0].state_dict()}
        # Built without weights of its own.
        self.to_qkv = nn.Linear(parts[0].in_features, 3 * parts[0].out_features, "bias" in fused, device="meta")
        self.to_qkv.load_state_dict(fused, assign=True)
        self.to_out = attention.to_out

    def own(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(x).chunk(3, -1)
        y = F.scaled_dot_product_attention(
            split_heads(q, self.heads), split_heads(k, self.heads), split_heads(v, self.heads)
        )
        return self.to_out[0](y.transpose(1, 2).flatten(2))


class SigmoidGELU(nn.Module):
    """Linear, then x·σ(1.702x)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)
        return x * torch.sigmoid(1.702 * x)


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(SigmoidGELU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class FoldedFeedForward(nn.Module):
    """A ``FeedForward`` with the 1.702 in its weights: x·σ(1.702x) = silu(1.702x) / 1.702. Two passes less."""

    def __init__(self, feed: FeedForward) -> None:
        super().__init__()
        gelu, _, fall = feed.net
        assert isinstance(gelu, SigmoidGELU)
        assert isinstance(fall, nn.Linear)
        self.rise, self.fall = gelu.proj, fall
        with torch.no_grad():
            self.rise.weight.mul_(1.702)
            self.rise.bias.mul_(1.702)
            self.fall.weight.div_(1.702)

    def forward(self, x: Tensor) -> Tensor:
        return self.fall(F.silu(self.rise(x), inplace=True))


class Block(nn.Module):
    def __init__(self, c: TransformerConfig) -> None:
        super().__init__()
        self.norm1 = AdaLayerNorm(c)
        self.attn1 = Attention(c, c.width)
        self.norm2 = AdaLayerNorm(c)
        self.attn2 = Attention(c, c.cross_attention_dim)
        self.norm3 = nn.LayerNorm(c.width)
        self.ff = FeedForward(c.width)

    def memory(self, context: Tensor) -> tuple[Tensor, Tensor]:
        return self.attn2.memory(context)

    def forward(self, x: Tensor, timestep: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = x + self.attn1.own(self.norm1(x, timestep))
        x = x + self.attn2(self.norm2(x, timestep), k, v)
        return x + self.ff(self.norm3(x))


class VQTransformer(nn.Module):
    """Tokens INT [B, L] with mask K, timestep INT [B], text memory → logits float32 [B, L, K]."""

    def __init__(self, c: TransformerConfig) -> None:
        super().__init__()
        self.latent_image_embedding = TokenEmbedding(c)
        self.transformer_blocks = nn.ModuleList([Block(c) for _ in range(c.num_layers)])
        self.norm_out = nn.LayerNorm(c.width)
        self.out = nn.Linear(c.width, c.codes)

    def prepare(self) -> None:
        """Make ready for inference, and for that alone: timestep embeddings as tables, fused products."""
        for block in self.transformer_blocks:
            for name in ("norm1", "norm2"):
                setattr(block, name, TabulatedLayerNorm(getattr(block, name)))
            block.attn1 = FusedSelfAttention(block.attn1)  # type: ignore[arg-type]
            block.ff = FoldedFeedForward(block.ff)  # type: ignore[arg-type]

    @torch.jit.export
    def memory(self, context: Tensor) -> Tensor:
        """Keys and values of every block for text states [B, S, D]: [blocks, 2, B, heads, S, d]. Independent of t."""
        context = context.to(self.out.weight.dtype)
        # A ModuleList does not tell mypy what it holds.
        pairs = [torch.stack(block.memory(context)) for block in self.transformer_blocks]  # type: ignore[operator]
        return torch.stack(pairs)

    def forward(self, tokens: Tensor, timestep: Tensor, memory: Tensor) -> Tensor:
        x = self.latent_image_embedding(tokens)
        for i, block in enumerate(self.transformer_blocks):
            x = block(x, timestep, memory[i, 0], memory[i, 1])
        return self.out(self.norm_out(x)).float()
