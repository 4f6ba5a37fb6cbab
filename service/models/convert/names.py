"""Our names of parameters, which are diffusers' and transformers', beside the official ones."""

import re
from collections.abc import Iterator

from service.condition import Condition
from service.models.convert.checkpoint import CODEC, NETWORK, TEXT
from service.models.transformer import TransformerConfig

BOTH = ("weight", "bias")
CODEC_LAYERS = (
    ("conv_shortcut", "nin_shortcut"),
    ("conv_norm_out", "norm_out"),
    ("mid_block.resnets.0", "mid.block_1"),
    ("mid_block.resnets.1", "mid.block_2"),
    ("mid_block.attentions.0", "mid.attn_1"),
    ("down_blocks.", "down."),
    (".resnets.", ".block."),
    (".attentions.", ".attn."),
    (".downsamplers.0.", ".downsample."),
    (".upsamplers.0.", ".upsample."),
    (".group_norm.", ".norm."),
    (".to_q.", ".q."),
    (".to_k.", ".k."),
    (".to_v.", ".v."),
    (".to_out.0.", ".proj_out."),
)
TEXT_LAYERS = (
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("self_attn.out_proj", "attn.out_proj"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
)


def network_names(config: TransformerConfig) -> dict[str, str]:
    """Ours → official, of every parameter of the network."""
    own = "latent_image_embedding."
    pairs = {f"{own}{name}.weight": f"content_emb.{name}.weight" for name in ("emb", "height_emb", "width_emb")}
    pairs |= {f"norm_out.{kind}": f"to_logits.0.{kind}" for kind in BOTH}
    pairs |= {f"out.{kind}": f"to_logits.1.{kind}" for kind in BOTH}
    for n in range(config.num_layers):
        pairs |= {f"transformer_blocks.{n}.{ours}": f"blocks.{n}.{theirs}" for ours, theirs in block_names(config)}
    return {ours: NETWORK + theirs for ours, theirs in pairs.items()}


def block_names(config: TransformerConfig) -> Iterator[tuple[str, str]]:
    text = config.condition is Condition.TEXT
    yield from norm_names("norm1", "ln1", True)
    yield from attention_names("attn1", "attn1" if text else "attn")
    if text:
        yield from norm_names("norm2", "ln1_1", True)
        yield from attention_names("attn2", "attn2")
    yield from norm_names("norm3", "ln2", config.condition is Condition.LABEL)
    rise, fall = ("conv1", "conv2") if config.convolution else ("0", "2")
    for kind in BOTH:
        yield f"ff.net.0.proj.{kind}", f"mlp.{rise}.{kind}"
        yield f"ff.net.2.{kind}", f"mlp.{fall}.{kind}"


def norm_names(ours: str, theirs: str, adaptive: bool) -> Iterator[tuple[str, str]]:
    for name in ("emb.weight", "linear.weight", "linear.bias") if adaptive else BOTH:
        yield f"{ours}.{name}", f"{theirs}.{name}"


def attention_names(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    for our, their in (("to_k", "key"), ("to_q", "query"), ("to_v", "value"), ("to_out.0", "proj")):
        for kind in BOTH:
            yield f"{ours}.{our}.{kind}", f"{theirs}.{their}.{kind}"


def codec_name(ours: str, levels: int) -> str:
    """The official name of a parameter of the codec, but for the codebook's. Its decoder counts from the finest."""
    name = re.sub(r"up_blocks\.(\d+)", lambda match: f"up.{levels - 1 - int(match[1])}", ours)
    for our, their in CODEC_LAYERS:
        name = name.replace(our, their)
    return f"{CODEC}{'enc' if name.startswith(('encoder.', 'quant_conv.')) else 'dec'}.{name}"


def text_names(layers: int) -> dict[str, tuple[str, int | None]]:
    """Ours → (official, which third of it; None: all of it)."""
    pairs: dict[str, tuple[str, int | None]] = {
        "embeddings.token_embedding.weight": ("token_embedding.weight", None),
        "embeddings.position_embedding.weight": ("positional_embedding", None),
    }
    for kind in BOTH:
        pairs[f"final_layer_norm.{kind}"] = (f"ln_final.{kind}", None)
    for n in range(layers):
        ours, theirs = f"encoder.layers.{n}", f"transformer.resblocks.{n}"
        for kind in BOTH:
            for our, their in TEXT_LAYERS:
                pairs[f"{ours}.{our}.{kind}"] = (f"{theirs}.{their}.{kind}", None)
            for third, name in enumerate("qkv"):
                pairs[f"{ours}.self_attn.{name}_proj.{kind}"] = (f"{theirs}.attn.in_proj_{kind}", third)
    return {ours: (TEXT + theirs, third) for ours, (theirs, third) in pairs.items()}
