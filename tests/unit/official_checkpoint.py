"""Checkpoints in the layout of official VQ-Diffusion training, tiny, with random weights."""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]


@dataclass(frozen=True)
class Spec:
    """``full``: codes of the codec, of which ``codes`` are in use; ``rows`` of classes, with the null."""

    kind: str = "text"
    width: int = 16
    layers: int = 2
    grid: int = 4
    table: int = 4
    codes: int = 11
    full: int = 11
    timesteps: int = 100
    convolution: bool = False
    null: bool = False
    rows: int = 5
    text_width: int = 64
    vocabulary: int = 512 + 3 + 2
    positions: int = 8
    quantiser: str = "plain"
    levels: int = 2
    attention: bool = True
    ema: bool = True
    seed: int = 0


TEXT = Spec()
CLASSES = Spec(kind="class", table=8, convolution=True, codes=7)
NOTHING = Spec(kind="none", table=8, convolution=True)


class Maker:
    """Random tensors by name."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.state: State = {}

    def tensor(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> None:
        value = torch.randn(*shape, generator=self.generator, dtype=torch.float32)
        scale = value[0].numel() ** -0.5 if len(shape) > 1 else 0.2
        norm = float(len(shape) == 1 and name.endswith("weight"))
        self.state[name] = (norm + scale * value).to(dtype)

    def layer(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> None:
        """A weight of this shape, and a bias."""
        self.tensor(f"{name}.weight", *shape, dtype=dtype)
        self.tensor(f"{name}.bias", shape[0], dtype=dtype)


def schedule(timesteps: int, maker: Maker) -> None:
    alpha = torch.linspace(0.99999, 0.000009, timesteps, dtype=torch.float64)
    gamma = torch.linspace(0.000009, 0.99999, timesteps, dtype=torch.float64)
    ends = {"at": (alpha, 1.0), "bt": (1 - alpha - gamma, 0.0), "ct": (gamma, 0.0)}
    for name, (values, last) in ends.items():
        maker.state[f"log_cumprod_{name}"] = torch.cat([values, torch.tensor([last])]).log().float()
        maker.state[f"log_{name}"] = values.log().float()
    for name in ("log_1_min_ct", "Lt_history", "Lt_count"):
        maker.state[name] = torch.zeros(timesteps)
    maker.state["log_1_min_cumprod_ct"] = torch.zeros(timesteps + 1)


def diffusion(spec: Spec, seed: int) -> State:
    """The diffusion module's state, as it stands in ``ema``."""
    maker, c = Maker(seed), spec.width
    schedule(spec.timesteps, maker)
    if spec.kind == "text":
        text_encoder(spec, maker)
        if spec.null:
            maker.tensor("empty_text_embed", spec.positions, spec.text_width, dtype=torch.float64)
    maker.tensor("transformer.content_emb.emb.weight", spec.codes + 1, c)
    for name in ("height", "width"):
        maker.tensor(f"transformer.content_emb.{name}_emb.weight", spec.table, c)
    for n in range(spec.layers):
        block(spec, maker, f"transformer.blocks.{n}")
    maker.layer("transformer.to_logits.0", c)
    maker.layer("transformer.to_logits.1", spec.codes, c)
    return maker.state


def block(spec: Spec, maker: Maker, name: str) -> None:
    c = spec.width
    norms = {"ln1": spec.timesteps} | ({"ln1_1": spec.timesteps} if spec.kind == "text" else {})
    norms |= {"ln2": spec.rows} if spec.kind == "class" else {}
    for norm, count in norms.items():
        maker.tensor(f"{name}.{norm}.emb.weight", count, c)
        maker.layer(f"{name}.{norm}.linear", 2 * c, c)
    if spec.kind != "class":
        maker.layer(f"{name}.ln2", c)
    for attention in ("attn1", "attn2") if spec.kind == "text" else ("attn",):
        for part in ("key", "query", "value", "proj"):
            from_text = attention == "attn2" and part in ("key", "value")
            maker.layer(f"{name}.{attention}.{part}", c, spec.text_width if from_text else c)
    if spec.kind == "text":
        maker.state[f"{name}.attn2.mask"] = torch.ones(1, 1, spec.grid**2, spec.grid**2).tril()
    if spec.convolution:
        maker.layer(f"{name}.mlp.conv1", 4 * c, c, 3, 3)
        maker.layer(f"{name}.mlp.conv2", c, 4 * c, 3, 3)
    else:
        maker.layer(f"{name}.mlp.0", 4 * c, c)
        maker.layer(f"{name}.mlp.2", c, 4 * c)


def text_encoder(spec: Spec, maker: Maker) -> None:
    d, half = spec.text_width, torch.float16
    maker.tensor("condition_emb.token_embedding.weight", spec.vocabulary, d)
    maker.tensor("condition_emb.positional_embedding", spec.positions, d)
    maker.tensor("condition_emb.text_projection", d, d, dtype=half)
    layer = "condition_emb.transformer.resblocks.0"
    maker.tensor(f"{layer}.attn.in_proj_weight", 3 * d, d, dtype=half)
    maker.tensor(f"{layer}.attn.in_proj_bias", 3 * d, dtype=half)
    maker.layer(f"{layer}.attn.out_proj", d, d, dtype=half)
    maker.layer(f"{layer}.mlp.c_fc", 4 * d, d, dtype=half)
    maker.layer(f"{layer}.mlp.c_proj", d, 4 * d, dtype=half)
    for norm in (f"{layer}.ln_1", f"{layer}.ln_2", "condition_emb.ln_final"):
        maker.layer(norm, d)


def codec(spec: Spec, seed: int) -> State:
    """The picture codec's state, without its prefix: 32 channels everywhere, z 6, e 4 or with Gumbel's 6."""
    maker, z, last = Maker(seed), 6, spec.levels - 1
    e = z if spec.quantiser == "gumbel" else 4
    maker.layer("enc.encoder.conv_in", 32, 3, 3, 3)
    maker.layer("dec.decoder.conv_in", 32, z, 3, 3)
    for side, ours in (("down", "enc.encoder"), ("up", "dec.decoder")):
        for level in range(spec.levels):
            for j in range(1 if side == "down" else 2):
                resnet(maker, f"{ours}.{side}.{level}.block.{j}")
                if spec.attention and level == last:
                    attention(maker, f"{ours}.{side}.{level}.attn.{j}")
        for level in range(last):
            name = f"down.{level}.downsample" if side == "down" else f"up.{level + 1}.upsample"
            maker.layer(f"{ours}.{name}.conv", 32, 32, 3, 3)
        resnet(maker, f"{ours}.mid.block_1")
        attention(maker, f"{ours}.mid.attn_1")
        resnet(maker, f"{ours}.mid.block_2")
        maker.layer(f"{ours}.norm_out", 32)
    maker.layer("enc.encoder.conv_out", z, 32, 3, 3)
    maker.layer("dec.decoder.conv_out", 3, 32, 3, 3)
    maker.layer("enc.quant_conv", e, z, 1, 1)
    maker.layer("dec.post_quant_conv", z, e, 1, 1)
    quantiser(spec, maker, e)
    return maker.state


def quantiser(spec: Spec, maker: Maker, e: int) -> None:
    name = {"plain": "embedding.weight", "ema": "embedding", "gumbel": "embed.weight"}[spec.quantiser]
    maker.tensor(f"enc.quantize.{name}", spec.full, e)
    if spec.quantiser == "ema":
        maker.tensor("enc.quantize.cluster_size", spec.full)
        maker.tensor("enc.quantize.embedding_avg", spec.full, e)
    if spec.quantiser == "gumbel":
        maker.layer("enc.quantize.proj", spec.full, e, 1, 1)
    same = {key.replace("enc.", "dec."): value for key, value in maker.state.items() if ".quantize." in key}
    maker.state |= same


def resnet(maker: Maker, name: str) -> None:
    for j in (1, 2):
        maker.layer(f"{name}.norm{j}", 32)
        maker.layer(f"{name}.conv{j}", 32, 32, 3, 3)


def attention(maker: Maker, name: str) -> None:
    maker.layer(f"{name}.norm", 32)
    for part in ("q", "k", "v", "proj_out"):
        maker.layer(f"{name}.{part}", 32, 32, 1, 1)


def make_checkpoint(spec: Spec) -> dict[str, Any]:
    """``model`` and ``ema`` have other weights, as after training."""
    trained, averaged = diffusion(spec, spec.seed), diffusion(spec, spec.seed + 1)
    pictures = {f"content_codec.{name}": value for name, value in codec(spec, spec.seed + 2).items()}
    model = pictures | {f"transformer.{name}": value for name, value in trained.items()}
    return {"last_epoch": 1, "last_iter": 2, "model": model} | ({"ema": averaged} if spec.ema else {})


def make_mapping(spec: Spec) -> Tensor:
    """As the official ones: code 0 of those in use stands for all unused ones."""
    mapping = torch.zeros(spec.full, dtype=torch.int64)
    used = torch.randperm(spec.full - 1, generator=torch.Generator().manual_seed(spec.seed))[: spec.codes - 1] + 1
    mapping[used.sort().values] = torch.arange(1, spec.codes)
    return mapping


def byte_words() -> list[str]:
    """CLIP's letter for each byte, and each that ends a word."""
    printing = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [*map(chr, printing), *(chr(256 + n) for n in range(68))]
    return [*letters, *(f"{letter}</w>" for letter in letters)]


MERGES = ("c a", "ca t</w>", "r e")


def write_vocabulary(folder: Path) -> Path:
    folder.mkdir()
    merged = [merge.replace(" ", "") for merge in MERGES]
    words = [*byte_words(), *merged, "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("\n".join(("#version: 0.2", *MERGES)) + "\n")
    return folder


def write_merges(path: Path) -> Path:
    """In the form of CLIP's own file, which has more merges than the model has tokens for."""
    lines = ('"bpe_simple_vocab_16e6.txt#version: 0.2', *MERGES, "o n", "s t")
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path
