"""What a model folder may hold: the class that a part's config names → how it is read and built, one line each."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias, TypeVar

from torch import nn

from service.condition import Condition
from service.diffusion.step import Denoiser
from service.models.bert import BertText
from service.models.clip import ClipText
from service.models.text_encoder import TextConfig
from service.models.transformer import ClassTransformer, PlainTransformer, TransformerConfig, VQTransformer
from service.models.vqvae import VQVAE, VQConfig

C = TypeVar("C")
M = TypeVar("M")
ConfigFile: TypeAlias = dict[str, Any]


class DenoiserConfig(Protocol):
    """The sizes of a denoiser that the rest of a model folder must fit."""

    @property
    def codes(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    @property
    def condition(self) -> Condition: ...
    @property
    def text_width(self) -> int:
        """0 unless the condition is text."""

    @property
    def classes(self) -> int:
        """Without the null; 0 unless the condition is a class."""

    @property
    def timesteps(self) -> int: ...


def part(read: Callable[[ConfigFile], C], build: Callable[[Any], M]) -> Callable[[ConfigFile], tuple[M, C]]:
    """How a part with random weights comes from its config file: ``build`` takes what ``read`` gives.

    It raises ValueError, KeyError or TypeError.
    """

    def make(file: ConfigFile) -> tuple[M, C]:
        config = read(file)
        return build(config), config

    return make


DENOISERS: Mapping[str, Callable[[ConfigFile], tuple[Denoiser, DenoiserConfig]]] = {
    "Transformer2DModel": part(TransformerConfig.from_diffusers, VQTransformer),
    "VQTextTransformer2DModel": part(TransformerConfig.from_diffusers, VQTransformer),
    "VQClassTransformer2DModel": part(TransformerConfig.from_diffusers, ClassTransformer),
    "VQUnconditionalTransformer2DModel": part(TransformerConfig.from_diffusers, PlainTransformer),
}
CODECS: Mapping[str, Callable[[ConfigFile], tuple[VQVAE, VQConfig]]] = {
    "VQModel": part(VQConfig.from_diffusers, VQVAE),
}
TEXT_ENCODERS: Mapping[str, Callable[[ConfigFile], tuple[nn.Module, TextConfig]]] = {
    "bert": part(TextConfig.from_transformers, BertText),
    "clip_text_model": part(TextConfig.from_clip, ClipText),
    "clip": part(TextConfig.from_clip, ClipText),
}


def named(table: Mapping[str, Callable[[ConfigFile], M]], field: str, usual: str = "") -> Callable[[ConfigFile], M]:
    """What builds the row that a config file's ``field`` names. It raises ValueError where there is none."""

    def make(file: ConfigFile) -> M:
        name = file.get(field, usual)
        if name not in table:
            raise ValueError(f"{field} is {name!r}; supported: {', '.join(table)}")
        return table[name](file)

    return make
