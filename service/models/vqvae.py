"""The VQ image codec: pixels to tokens and back.

The module tree and its parameter names are those of diffusers' ``VQModel`` (taming's VQGAN), so a state dict of either
loads in the other.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-6


@dataclass(frozen=True)
class VQConfig:
    """The fields of a diffusers ``VQModel`` config that this module honours."""

    block_out_channels: tuple[int, ...]
    num_vq_embeddings: int
    latent_channels: int
    vq_embed_dim: int
    sample_size: int
    layers_per_block: int = 1
    norm_num_groups: int = 32
    in_channels: int = 3
    out_channels: int = 3
    mid_block_add_attention: bool = True
    down_attention: tuple[bool, ...] = ()
    up_attention: tuple[bool, ...] = ()

    @classmethod
    def from_diffusers(cls, config: dict[str, Any]) -> "VQConfig":
        """Read a diffusers ``vqvae/config.json``. Raises ValueError for a variant that is not implemented."""
        if config.get("act_fn", "silu") != "silu" or config.get("norm_type", "group") != "group":
            raise ValueError("only act_fn=silu and norm_type=group are supported")
        channels = tuple(config["block_out_channels"])
        latent = config["latent_channels"]
        return cls(
            block_out_channels=channels,
            num_vq_embeddings=config["num_vq_embeddings"],
            latent_channels=latent,
            vq_embed_dim=config.get("vq_embed_dim") or latent,
            sample_size=config["sample_size"],
            layers_per_block=config.get("layers_per_block", 1),
            norm_num_groups=config.get("norm_num_groups", 32),
            in_channels=config.get("in_channels", 3),
            out_channels=config.get("out_channels", 3),
            mid_block_add_attention=config.get("mid_block_add_attention", True),
            down_attention=tuple("Attn" in name for name in config["down_block_types"]),
            up_attention=tuple("Attn" in name for name in config["up_block_types"]),
        )

    def to_diffusers(self) -> dict[str, Any]:
        """The ``vqvae/config.json`` that diffusers reads."""
        levels = len(self.block_out_channels)
        down = self.down_attention or (False,) * levels
        up = self.up_attention or (False,) * levels
        return {
            "_class_name": "VQModel",
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "down_block_types": ["AttnDownEncoderBlock2D" if a else "DownEncoderBlock2D" for a in down],
            "up_block_types": ["AttnUpDecoderBlock2D" if a else "UpDecoderBlock2D" for a in up],
            "block_out_channels": list(self.block_out_channels),
            "layers_per_block": self.layers_per_block,
            "act_fn": "silu",
            "latent_channels": self.latent_channels,
            "sample_size": self.sample_size,
            "num_vq_embeddings": self.num_vq_embeddings,
            "norm_num_groups": self.norm_num_groups,
            "vq_embed_dim": self.vq_embed_dim,
            "mid_block_add_attention": self.mid_block_add_attention,
        }


class ResnetBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=EPS)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=EPS)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.conv_shortcut(x) + h


class SpatialAttention(nn.Module):
    """Single-head self-attention over the pixels of a feature map, with a residual connection."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=EPS)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        y = self.group_norm(x).reshape(b, c, h * w).transpose(1, 2)
        scores = self.to_q(y) @ self.to_k(y).transpose(1, 2) * c**-0.5
        y = self.to_out[0](scores.softmax(-1) @ self.to_v(y))
        return x + y.transpose(1, 2).reshape(b, c, h, w)


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """One resolution: residual blocks, each followed by attention if asked for, then a change of resolution."""

    def __init__(self, channels: tuple[int, int], blocks: int, groups: int, attention: bool, resample: str) -> None:
        super().__init__()
        widths = [channels[0]] + [channels[1]] * blocks
        self.resnets = nn.ModuleList([ResnetBlock(a, b, groups) for a, b in pairwise(widths)])
        self.attentions = nn.ModuleList(
            [SpatialAttention(channels[1], groups) if attention else nn.Identity() for _ in range(blocks)]
        )
        if resample == "down":
            self.downsamplers = nn.ModuleList([Downsample(channels[1])])
            self.upsamplers = nn.ModuleList([])
        else:
            self.downsamplers = nn.ModuleList([])
            self.upsamplers = nn.ModuleList([Upsample(channels[1])] if resample == "up" else [])

    def forward(self, x: Tensor) -> Tensor:
        for resnet, attention in zip(self.resnets, self.attentions):  # noqa: B905 (TorchScript knows no strict=)
            x = attention(resnet(x))
        for down in self.downsamplers:
            x = down(x)
        for up in self.upsamplers:
            x = up(x)
        return x


class MidBlock(nn.Module):
    def __init__(self, channels: int, groups: int, attention: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([ResnetBlock(channels, channels, groups) for _ in range(2)])
        self.attentions = nn.ModuleList([SpatialAttention(channels, groups) if attention else nn.Identity()])

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Encoder(nn.Module):
    def __init__(self, c: VQConfig) -> None:
        super().__init__()
        widths, groups = c.block_out_channels, c.norm_num_groups
        attention = c.down_attention or (False,) * len(widths)
        self.conv_in = nn.Conv2d(c.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        previous = widths[0]
        for i, width in enumerate(widths):
            resample = "down" if i < len(widths) - 1 else "none"
            self.down_blocks.append(Level((previous, width), c.layers_per_block, groups, attention[i], resample))
            previous = width
        self.mid_block = MidBlock(previous, groups, c.mid_block_add_attention)
        self.conv_norm_out = nn.GroupNorm(groups, previous, eps=EPS)
        self.conv_out = nn.Conv2d(previous, c.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    def __init__(self, c: VQConfig) -> None:
        super().__init__()
        widths, groups = c.block_out_channels[::-1], c.norm_num_groups
        attention = c.up_attention or (False,) * len(widths)
        self.conv_in = nn.Conv2d(c.latent_channels, widths[0], 3, padding=1)
        self.mid_block = MidBlock(widths[0], groups, c.mid_block_add_attention)
        self.up_blocks = nn.ModuleList()
        previous = widths[0]
        for i, width in enumerate(widths):
            resample = "up" if i < len(widths) - 1 else "none"
            self.up_blocks.append(Level((previous, width), c.layers_per_block + 1, groups, attention[i], resample))
            previous = width
        self.conv_norm_out = nn.GroupNorm(groups, previous, eps=EPS)
        self.conv_out = nn.Conv2d(previous, c.out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class Codebook(nn.Module):
    """The codes of the quantiser. A picture's token is the nearest code, by Euclidean distance.

    That is not so where the codes in use are a part of those that the codec was trained with, or where it is a Gumbel
    codec: ``weight`` [N, C] and ``bias`` [N] then score N codes, and ``mapping`` INT64 [N] makes the best one a token.
    None of the three is there as a rule.
    """

    weight: Tensor
    bias: Tensor
    mapping: Tensor

    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, width)
        self.encode_by(
            torch.zeros(0, width, device="cpu"),
            torch.zeros(0, device="cpu"),
            torch.zeros(0, dtype=torch.int64, device="cpu"),
        )

    def encode_by(self, weight: Tensor, bias: Tensor, mapping: Tensor) -> None:
        """Let them choose the tokens. They are not in the state dict: diffusers' VQModel has no such thing."""
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.register_buffer("mapping", mapping, persistent=False)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] to tokens [B, h*w]."""
        flat = latents.flatten(2).transpose(1, 2)
        if self.mapping.numel() > 0:
            return self.mapping[F.linear(flat, self.weight, self.bias).argmax(-1)]
        codes = self.embedding.weight
        return (codes.square().sum(1) - 2 * flat @ codes.T).argmin(-1)


class VQVAE(nn.Module):
    """Encoder, codebook and decoder. Pixels are float in [-1, 1]; a token is a row of the codebook."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.width = config.sample_size // 2 ** (len(config.block_out_channels) - 1)
        self.encoder = Encoder(config)
        self.quant_conv = nn.Conv2d(config.latent_channels, config.vq_embed_dim, 1)
        self.quantize = Codebook(config.num_vq_embeddings, config.vq_embed_dim)
        self.post_quant_conv = nn.Conv2d(config.vq_embed_dim, config.latent_channels, 1)
        self.decoder = Decoder(config)

    def latents(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] to latents [B, C, h, w] before quantisation."""
        return self.quant_conv(self.encoder(pixels))

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] to tokens [B, h*w], row by row."""
        return self.quantize(self.latents(pixels))

    def decode_latents(self, quantised: Tensor) -> Tensor:
        """Quantised latents [B, C, h, w] to pixels [B, 3, H, W]."""
        return self.decoder(self.post_quant_conv(quantised))

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens [B, h*w] to pixels [B, 3, H, W], not clamped."""
        codes = self.quantize.embedding(tokens).transpose(1, 2)
        return self.decode_latents(codes.unflatten(2, (codes.shape[2] // self.width, self.width)))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.decode(tokens)
