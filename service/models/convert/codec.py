"""The picture codec of an official checkpoint: taming's VQGAN, PatchVQGAN or GumbelVQ, with its mapping folded in."""

import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from service.errors import SetupError
from service.models.convert.checkpoint import CODEC, Checkpoint, reason
from service.models.convert.names import codec_name
from service.models.convert.parts import Part, Source, refuse_extra, sources_for
from service.models.transformer import TransformerConfig
from service.models.vqvae import VQVAE, VQConfig

ENCODER, DECODER = f"{CODEC}enc.encoder.", f"{CODEC}dec.decoder."
QUANTISER = f"{CODEC}enc.quantize."
CODEBOOKS = ("embedding.weight", "embed.weight", "embedding")
"""The codes of a plain quantiser, of Gumbel's, and of one that was trained by moving averages."""
BOTH = ("weight", "bias")
UNUSED = ("cluster_size", "embedding_avg")
"""What only the training of the last one needs."""
WHERE_MAPPINGS_ARE = (
    "the files taming_vqvae_2887.pt (COCO, Conceptual Captions, human, CUB) and taming_vqvae_974.pt (ImageNet) are in "
    "help_folder/statistics of github.com/microsoft/VQ-Diffusion"
)


def scale_of(checkpoint: Checkpoint) -> int:
    """Pixels per token and side."""
    if not checkpoint.has(CODEC):
        checkpoint.fail(f"the picture codec ({CODEC}*) is missing; it belongs into 'model'")
    levels = checkpoint.count(f"{ENCODER}down.")
    if levels == 0:
        checkpoint.fail(f"{ENCODER}down.0 is missing; this is not the whole checkpoint")
    return 2 ** (levels - 1)


def read_codec(checkpoint: Checkpoint, network: TransformerConfig) -> VQConfig:
    """The codec's config, for pictures of the network's tokens. Raises SetupError naming what does not fit."""
    levels = checkpoint.count(f"{ENCODER}down.")
    widths = [checkpoint.shape(f"{ENCODER}down.{i}.block.0.conv1.weight", 4)[0] for i in range(levels)]
    first = checkpoint.shape(f"{ENCODER}conv_in.weight", 4)[0]
    if first != widths[0]:
        checkpoint.fail(f"its codec's ch_mult begins with {widths[0] / first:g}; only 1 is supported, as released")
    return VQConfig(
        block_out_channels=tuple(widths),
        num_vq_embeddings=network.codes,
        latent_channels=checkpoint.shape(f"{ENCODER}conv_out.weight", 4)[0],
        vq_embed_dim=checkpoint.shape(f"{CODEC}enc.quant_conv.weight", 4)[0],
        sample_size=network.sample_size * 2 ** (levels - 1),
        layers_per_block=checkpoint.count(f"{ENCODER}down.0.block."),
        mid_block_add_attention=checkpoint.has(f"{ENCODER}mid.attn_1."),
        down_attention=tuple(checkpoint.has(f"{ENCODER}down.{i}.attn.") for i in range(levels)),
        up_attention=tuple(checkpoint.has(f"{DECODER}up.{i}.attn.") for i in reversed(range(levels))),
    )


def codec_parts(checkpoint: Checkpoint, config: VQConfig, mapping: Tensor | None) -> list[Part]:
    """The codec as diffusers knows it and, where its tokens are not the nearest codes, what encoding needs.

    ``mapping`` INT64 [full codes] → codes in use; None: all are in use. Raises SetupError.
    """
    with torch.device("meta"):
        module = VQVAE(config)
    levels, book = len(config.block_out_channels), codebook_name(checkpoint)
    names = {ours: codec_name(ours, levels) for ours in module.state_dict()}
    names["quantize.embedding.weight"] = book.replace(".enc.", ".dec.")
    special: dict[str, Callable[[Tensor], Tensor]]
    special = {ours: flat for ours, value in module.state_dict().items() if ".attentions." in ours and value.dim() == 2}
    if mapping is not None:
        special["quantize.embedding.weight"] = rows(first_of_each(mapping, config.num_vq_embeddings))
    parts = [
        Part("vqvae", "diffusion_pytorch_model", config.to_diffusers(), sources_for(module, names, checkpoint, special))
    ]
    used = {*names.values(), book, *(f"{CODEC}{side}.quantize.proj.{kind}" for side in ("enc", "dec") for kind in BOTH)}
    refuse_extra(checkpoint, CODEC, used, lambda name: name.rpartition(".")[2] in UNUSED)
    encoding = encoding_sources(checkpoint, book, mapping)
    return [*parts, Part("vqvae", "encoding", None, encoding)] if encoding else parts


def codebook_name(checkpoint: Checkpoint) -> str:
    found = [name for name in CODEBOOKS if f"{QUANTISER}{name}" in checkpoint.state]
    if not found:
        checkpoint.fail(f"the codec's codes ({QUANTISER}{' or '.join(CODEBOOKS)}) are missing")
    return f"{QUANTISER}{found[0]}"


def encoding_sources(checkpoint: Checkpoint, book: str, mapping: Tensor | None) -> dict[str, Source]:
    """Scores of all codes that the codec was trained with, and the mapping; empty where the nearest code is meant."""
    codes, width = checkpoint.shape(book, 2)
    gumbel = checkpoint.has(f"{QUANTISER}proj.")
    if mapping is None and not gumbel:
        return {}
    table = torch.arange(codes) if mapping is None else mapping
    found = {"mapping": Source(book, (codes,), lambda _: table)}
    if not gumbel:  # the nearest code is that of the largest 2 x·c - |c|²
        found["weight"] = Source(book, (codes, width), lambda book: 2 * book.float())
        found["bias"] = Source(book, (codes,), lambda book: -book.float().square().sum(1))
        return found
    if checkpoint.shape(f"{QUANTISER}proj.weight") != (codes, width, 1, 1):
        checkpoint.fail(f"{QUANTISER}proj.weight does not fit its {codes} codes of {width} numbers")
    found["weight"] = Source(f"{QUANTISER}proj.weight", (codes, width), flat)
    found["bias"] = Source(f"{QUANTISER}proj.bias", checkpoint.shape(f"{QUANTISER}proj.bias"))
    return found


def flat(weight: Tensor) -> Tensor:
    """The weight of a 1x1 convolution as that of a linear layer."""
    return weight.flatten(1)


def rows(index: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda book: book[index.to(book.device)]


def first_of_each(mapping: Tensor, codes: int) -> Tensor:
    """The first full code of each code in use: how official decoding undoes the mapping."""
    return torch.stack([(mapping == code).nonzero()[0, 0] for code in range(codes)])


def read_mapping(path: Path | None, checkpoint: Checkpoint, codes: int) -> Tensor | None:
    """INT64 [full codes], checked against the network's ``codes``; None: the network knows all of the codec's.

    Raises SetupError for one that is missing, of another length, or of another number of codes.
    """
    full = checkpoint.shape(codebook_name(checkpoint), 2)[0]
    if path is None:
        if codes != full:
            checkpoint.fail(
                f"the network knows {codes} codes and the codec {full}: give --mapping FILE; {WHERE_MAPPINGS_ARE}"
            )
        return None
    mapping = load_mapping(path)
    if len(mapping) != full:
        raise SetupError(
            f"{path} maps {len(mapping)} codes, and the codec of {checkpoint.path} has {full}: {WHERE_MAPPINGS_ARE}"
        )
    if not torch.equal(mapping.unique(), torch.arange(codes)):
        raise SetupError(
            f"{path} maps to the codes {int(mapping.min())} to {int(mapping.max())}, not all of them, or to others "
            f"than the {codes} that the network knows: {WHERE_MAPPINGS_ARE}"
        )
    return mapping


def load_mapping(path: Path) -> Tensor:
    if not path.is_file():
        raise SetupError(f"{path}: there is no such mapping; {WHERE_MAPPINGS_ARE}")
    try:
        mapping = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        raise SetupError(f"{path} is no mapping of codes: {reason(error)}; {WHERE_MAPPINGS_ARE}") from None
    if not isinstance(mapping, Tensor) or mapping.dim() != 1 or mapping.is_floating_point() or not len(mapping):
        raise SetupError(f"{path} is no mapping of codes, which is a list of whole numbers; {WHERE_MAPPINGS_ARE}")
    return mapping.long()
