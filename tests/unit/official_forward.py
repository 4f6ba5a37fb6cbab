"""The official network and codec as their papers and README say them: one row at a time, one formula a line."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from unit.official_checkpoint import Spec, State


def linear(x: Tensor, s: State, name: str) -> Tensor:
    return x @ s[f"{name}.weight"].float().T + s[f"{name}.bias"].float()


def layer_norm(x: Tensor) -> Tensor:
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


def plain_norm(x: Tensor, s: State, name: str) -> Tensor:
    return layer_norm(x) * s[f"{name}.weight"].float() + s[f"{name}.bias"].float()


def modulated(x: Tensor, s: State, name: str, vector: Tensor) -> Tensor:
    out = linear(vector * torch.sigmoid(vector), s, f"{name}.linear")
    half = out.shape[-1] // 2
    return layer_norm(x) * (1 + out[:half]) + out[half:]


def attend(x: Tensor, other: Tensor, s: State, name: str, heads: int) -> Tensor:
    q, k, v = linear(x, s, f"{name}.query"), linear(other, s, f"{name}.key"), linear(other, s, f"{name}.value")
    size = q.shape[-1] // heads
    parts = []
    for h in range(heads):
        at = slice(h * size, (h + 1) * size)
        scores = q[:, at] @ k[:, at].T / math.sqrt(size)
        parts.append(scores.softmax(-1) @ v[:, at])
    return linear(torch.cat(parts, -1), s, f"{name}.proj")


def gelu2(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def mlp(x: Tensor, s: State, name: str, spec: Spec) -> Tensor:
    if not spec.convolution:
        return linear(gelu2(linear(x, s, f"{name}.0")), s, f"{name}.2")
    y = x.T.reshape(1, -1, spec.grid, spec.grid)
    y = F.conv2d(gelu2(conv(y, s, f"{name}.conv1")), s[f"{name}.conv2.weight"], s[f"{name}.conv2.bias"], padding=1)
    return y[0].flatten(1).T


def logits(s: State, spec: Spec, heads: int, tokens: Tensor, timestep: int, condition: Tensor) -> Tensor:
    """[L, K] of one row. ``condition``: text states [S, D], the vector of a class's row per block [blocks, C], or any.

    ``s``: a diffusion module's state.
    """
    net = "transformer"
    place = [divmod(i, spec.table) for i in range(len(tokens))]
    height, width = (s[f"{net}.content_emb.{name}_emb.weight"] for name in ("height", "width"))
    x = s[f"{net}.content_emb.emb.weight"][tokens]
    x = x + torch.stack([height[row] + width[column] for row, column in place])
    for n in range(spec.layers):
        name = f"{net}.blocks.{n}"
        own = "attn1" if spec.kind == "text" else "attn"
        y = modulated(x, s, f"{name}.ln1", s[f"{name}.ln1.emb.weight"][timestep])
        x = x + attend(y, y, s, f"{name}.{own}", heads)
        if spec.kind == "text":
            y = modulated(x, s, f"{name}.ln1_1", s[f"{name}.ln1_1.emb.weight"][timestep])
            x = x + attend(y, condition, s, f"{name}.attn2", heads)
        is_class = spec.kind == "class"
        y = modulated(x, s, f"{name}.ln2", condition[n]) if is_class else plain_norm(x, s, f"{name}.ln2")
        x = x + mlp(y, s, f"{name}.mlp", spec)
    return linear(plain_norm(x, s, f"{net}.to_logits.0"), s, f"{net}.to_logits.1")


def class_vectors(s: State, spec: Spec, label: int | None) -> Tensor:
    """Of a class in every block [blocks, C]; None: the mean of all rows."""
    tables = [s[f"transformer.blocks.{n}.ln2.emb.weight"] for n in range(spec.layers)]
    return torch.stack([table.mean(0) if label is None else table[label] for table in tables])


def text_states(s: State, ids: list[int]) -> Tensor:
    """CLIP's, each divided by its length [S, D]; of one layer, as the checkpoints here have."""
    layer = "condition_emb.transformer.resblocks.0"
    x = s["condition_emb.token_embedding.weight"][ids] + s["condition_emb.positional_embedding"]
    y = plain_norm(x, s, f"{layer}.ln_1")
    stacked = y @ s[f"{layer}.attn.in_proj_weight"].float().T + s[f"{layer}.attn.in_proj_bias"].float()
    q, k, v = stacked.chunk(3, -1)
    scores = (q @ k.T / math.sqrt(64)).masked_fill(torch.ones(len(ids), len(ids)).triu(1).bool(), -torch.inf)
    x = x + linear(scores.softmax(-1) @ v, s, f"{layer}.attn.out_proj")
    y = gelu2(linear(plain_norm(x, s, f"{layer}.ln_2"), s, f"{layer}.mlp.c_fc"))
    x = plain_norm(x + linear(y, s, f"{layer}.mlp.c_proj"), s, "condition_emb.ln_final")
    return x / x.norm(dim=-1, keepdim=True)


def conv(x: Tensor, s: State, name: str) -> Tensor:
    weight = s[f"{name}.weight"]
    return F.conv2d(x, weight, s[f"{name}.bias"], padding=weight.shape[-1] // 2)


def swish_norm(x: Tensor, s: State, name: str) -> Tensor:
    y = F.group_norm(x, 32, s[f"{name}.weight"], s[f"{name}.bias"], 1e-6)
    return y * torch.sigmoid(y)


def resnet(x: Tensor, s: State, name: str) -> Tensor:
    y = conv(swish_norm(x, s, f"{name}.norm1"), s, f"{name}.conv1")
    return x + conv(swish_norm(y, s, f"{name}.norm2"), s, f"{name}.conv2")


def spatial(x: Tensor, s: State, name: str) -> Tensor:
    if f"{name}.norm.weight" not in s:
        return x
    y = F.group_norm(x, 32, s[f"{name}.norm.weight"], s[f"{name}.norm.bias"], 1e-6)
    q, k, v = [conv(y, s, f"{name}.{part}").flatten(2)[0] for part in "qkv"]
    mixed = v @ (q.T @ k / math.sqrt(x.shape[1])).softmax(-1).T
    return x + conv(mixed.reshape(x.shape), s, f"{name}.proj_out")


def middle(x: Tensor, s: State, name: str) -> Tensor:
    x = spatial(resnet(x, s, f"{name}.block_1"), s, f"{name}.attn_1")
    return resnet(x, s, f"{name}.block_2")


def decode(s: State, spec: Spec, codes: Tensor) -> Tensor:
    """Pixels [3, H, W] of the rows [L, e] of the codebook. ``s``: a codec's state."""
    d = "dec.decoder"
    x = conv(codes.T.reshape(1, -1, spec.grid, spec.grid), s, "dec.post_quant_conv")
    x = middle(conv(x, s, f"{d}.conv_in"), s, f"{d}.mid")
    for level in reversed(range(spec.levels)):
        for j in (0, 1):
            x = spatial(resnet(x, s, f"{d}.up.{level}.block.{j}"), s, f"{d}.up.{level}.attn.{j}")
        if level:
            x = conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3), s, f"{d}.up.{level}.upsample.conv")
    return conv(swish_norm(x, s, f"{d}.norm_out"), s, f"{d}.conv_out")[0]


def encode(s: State, spec: Spec, pixels: Tensor) -> Tensor:
    """Full codes [L] of pixels [3, H, W]."""
    e = "enc.encoder"
    x = conv(pixels[None], s, f"{e}.conv_in")
    for level in range(spec.levels):
        x = spatial(resnet(x, s, f"{e}.down.{level}.block.0"), s, f"{e}.down.{level}.attn.0")
        if level < spec.levels - 1:
            name = f"{e}.down.{level}.downsample.conv"
            x = F.conv2d(F.pad(x, (0, 1, 0, 1)), s[f"{name}.weight"], s[f"{name}.bias"], stride=2)
    x = conv(swish_norm(middle(x, s, f"{e}.mid"), s, f"{e}.norm_out"), s, f"{e}.conv_out")
    z = conv(x, s, "enc.quant_conv")
    if spec.quantiser == "gumbel":
        return conv(z, s, "enc.quantize.proj")[0].flatten(1).argmax(0)
    book = s["enc.quantize.embedding" + (".weight" if spec.quantiser == "plain" else "")]
    return torch.cdist(z[0].flatten(1).T, book).argmin(-1)
