"""The layers that the denoisers share.

Parameter names are those of diffusers' ``Transformer2DModel`` with discrete input.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TokenEmbedding(nn.Module):
    """Embedding of the code (or mask) plus embeddings of its row and column.

    Position i is entry i, row by row, of a table of ``side`` x ``side``, also where there are fewer tokens than that: a
    released 16x16 grid has 8 rows of 32.
    """

    def __init__(self, codes: int, side: int, width: int) -> None:
        super().__init__()
        self.emb = nn.Embedding(codes, width)
        self.height_emb = nn.Embedding(side, width)
        self.width_emb = nn.Embedding(side, width)

    def forward(self, tokens: Tensor) -> Tensor:
        grid = self.height_emb.weight[:, None] + self.width_emb.weight[None]
        return self.emb(tokens) + grid.flatten(0, 1)[: tokens.shape[1]]


class AdaLayerNorm(nn.Module):
    """LayerNorm whose scale and shift come from a learned embedding of each row's timestep, or of its class."""

    def __init__(self, embeddings: int, width: int) -> None:
        super().__init__()
        self.emb = nn.Embedding(embeddings, width)
        self.linear = nn.Linear(width, 2 * width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)

    def modulation(self, index: Tensor) -> Tensor:
        """1 + scale and shift of each row [2, B, 1, C]."""
        scale, shift = self.linear(F.silu(self.emb(index)))[:, None].chunk(2, -1)
        return torch.stack([1 + scale, shift])

    def apply_to(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return self.norm(x) * scale + shift

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        scale, shift = self.linear(F.silu(self.emb(timestep)))[:, None].chunk(2, -1)
        return self.norm(x) * (1 + scale) + shift


class TabulatedLayerNorm(nn.Module):
    """An AdaLayerNorm with scale and shift of every timestep, or class, worked out beforehand.

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

    def modulation(self, index: Tensor) -> Tensor:
        """1 + scale and shift of each row [2, B, 1, C]."""
        return self.table[:, index, None]

    def apply_to(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return torch.addcmul(shift, self.norm(x), scale)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        scale, shift = self.table[:, timestep, None].unbind(0)
        return torch.addcmul(shift, self.norm(x), scale)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, L, C] to [B, heads, L, C / heads]."""
    return x.unflatten(-1, (heads, x.shape[-1] // heads)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, small: int = 2**17) -> Tensor:
    """Softmax attention of queries [B, heads, L, d] to keys and values [B, heads, S, d].

    In bfloat16 on a CPU, PyTorch's fused kernel makes a tenth of the products a second that its plain ones do: those
    are taken where L x S scores of a head are few enough to be kept.
    """
    if q.dtype != torch.bfloat16 or q.is_cuda or q.shape[2] * k.shape[2] > small:
        return F.scaled_dot_product_attention(q, k, v)
    rows, heads, width = q.shape[0], q.shape[1], q.shape[3]
    q, k, v = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
    unused = torch.empty([1], dtype=q.dtype, device=q.device)
    scores = torch.baddbmm(unused, q, k.transpose(1, 2), beta=0.0, alpha=width**-0.5)
    # What does not fill a register costs bfloat16's softmax four times as much as float32's.
    share = scores.softmax(-1) if scores.shape[2] % 32 == 0 else scores.float().softmax(-1).to(v.dtype)
    return torch.bmm(share, v).unflatten(0, (rows, heads))


class Attention(nn.Module):
    """Multi-head attention; keys and values are made by ``memory`` so that they can be kept between calls."""

    def __init__(self, width: int, heads: int, memory_width: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=bias)
        self.to_k = nn.Linear(memory_width, width, bias=bias)
        self.to_v = nn.Linear(memory_width, width, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def memory(self, states: Tensor) -> tuple[Tensor, Tensor]:
        return split_heads(self.to_k(states), self.heads), split_heads(self.to_v(states), self.heads)

    def own(self, x: Tensor) -> Tensor:
        """Self-attention."""
        k, v = self.memory(x)
        return self(x, k, v)

    def forward(self, x: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q = split_heads(self.to_q(x), self.heads)
        # On CPU the backward of the fused kernel is slower than plain matmuls.
        y = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1) @ v if self.training else attend(q, k, v)
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
        y = attend(split_heads(q, self.heads), split_heads(k, self.heads), split_heads(v, self.heads))
        return self.to_out[0](y.transpose(1, 2).flatten(2))


class PaddedLinear(nn.Module):
    """A ``Linear`` that works out as many more outputs as make a whole number of eights, and leaves them out.

    The 2,887 codes of a released model are odd in memory, for which a GPU has slow products only, whose bits depend on
    how many rows there are.
    """

    of: Final[int] = 8

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.outputs = linear.out_features
        missing = -self.outputs % self.of
        self.weight = nn.Parameter(F.pad(linear.weight.detach(), (0, 0, 0, missing)), requires_grad=False)
        self.bias = nn.Parameter(F.pad(linear.bias.detach(), (0, missing)), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)[..., : self.outputs]


class GridConv(nn.Conv2d):
    """A 3x3 convolution over the square grid that L tokens are, row by row: [B, L, C] to [B, L, C'].

    On a CPU, torch has another kernel for one small picture than for several, and on a GPU kernels whose bits depend on
    the place in the batch: there, or where a grid is so small, it becomes one product instead.
    """

    small: Final[int] = 20480  # numbers in a picture, as in torch's choice of the kernel

    def __init__(self, width: int, inner: int) -> None:
        super().__init__(width, inner, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        side = int(x.shape[1] ** 0.5 + 0.5)
        grid = x.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        if x.is_cuda or x.shape[1] * x.shape[2] <= self.small:
            return F.linear(F.unfold(grid, 3, padding=1).transpose(1, 2), self.weight.flatten(1), self.bias)
        y = F.conv2d(grid, self.weight, self.bias, padding=1)
        return y.permute(0, 2, 3, 1).flatten(1, 2)


def mixer(width: int, inner: int, convolution: bool) -> nn.Module:
    """One layer of a feed-forward: [B, L, ``width``] to [B, L, ``inner``]."""
    return GridConv(width, inner) if convolution else nn.Linear(width, inner)


class SigmoidGELU(nn.Module):
    """A linear layer or convolution, then x·σ(1.702x)."""

    def __init__(self, width: int, inner: int, convolution: bool) -> None:
        super().__init__()
        self.proj = mixer(width, inner, convolution)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)
        return x * torch.sigmoid(1.702 * x)


class FeedForward(nn.Module):
    def __init__(self, width: int, convolution: bool = False) -> None:
        super().__init__()
        rise, fall = SigmoidGELU(width, 4 * width, convolution), mixer(4 * width, width, convolution)
        self.net = nn.Sequential(rise, nn.Identity(), fall)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class FoldedFeedForward(nn.Module):
    """A ``FeedForward`` with the 1.702 in its weights: x·σ(1.702x) = silu(1.702x) / 1.702. Two passes less."""

    def __init__(self, feed: FeedForward) -> None:
        super().__init__()
        gelu, _, fall = feed.net
        assert isinstance(gelu, SigmoidGELU)
        assert isinstance(fall, nn.Linear | GridConv)
        assert isinstance(gelu.proj, nn.Linear | GridConv)
        self.rise, self.fall = gelu.proj, fall
        assert self.rise.bias is not None
        with torch.no_grad():
            self.rise.weight.mul_(1.702)
            self.rise.bias.mul_(1.702)
            self.fall.weight.div_(1.702)

    def forward(self, x: Tensor) -> Tensor:
        return self.fall(F.silu(self.rise(x), inplace=True))
