"""Which files hold a part's weights, among the forms that diffusers and transformers write; read without torch."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from service.errors import SetupError

STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
KINDS = ("safetensors", "bin")
VARIANTS = ("fp16", "bf16")
"""Those that are taken before any other."""
ONE_OF_MANY = re.compile(rf"({'|'.join(STEMS)})[.-].*({'|'.join(KINDS)})(\.index.*\.json)?")
VARIANT = re.compile(rf"({'|'.join(STEMS)})(\.(?:{'|'.join(KINDS)})\.index)?\.(\w+)\.({'|'.join(KINDS)}|json)")
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class Weights:
    """``files``: all of one state dict; ``index``: what names them when they are shards; ``variant``: "" as a rule."""

    files: tuple[Path, ...]
    index: Path | None = None
    variant: str = ""


def find_weights(folder: Path) -> Weights:
    """The weights that are read: whole precision before a variant, safetensors before a pickle.

    Raises SetupError when there are none, or shards are missing.
    """
    found = list(forms(folder))
    if not found:
        raise SetupError(f"{folder} holds no weights: {why_none(folder)}")
    # Of a repository of which only some forms were fetched, the others are pointers.
    return next((weights for weights in found if not any(map(is_pointer, weights.files))), found[0])


def forms(folder: Path) -> Iterator[Weights]:
    """Every form that is there, best first."""
    for variant in ("", *variants(folder)):
        middle = variant and f".{variant}"
        for kind in KINDS:
            for stem in STEMS:
                whole, index = folder / f"{stem}{middle}.{kind}", folder / f"{stem}.{kind}.index{middle}.json"
                if whole.exists():
                    yield Weights((whole,), None, variant)
                elif index.exists():
                    yield Weights(shards(index), index, variant)


def variants(folder: Path) -> list[str]:
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    found = {match[3] for name in names if (match := VARIANT.fullmatch(name))} - {"index"}
    return sorted(found, key=lambda variant: (variant not in VARIANTS, variant != VARIANTS[0], variant))


def shards(index: Path) -> tuple[Path, ...]:
    """The files that an index names. Raises SetupError for one that is missing."""
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        if is_pointer(index):
            return (index,)  # which says so to whoever reads it
        raise SetupError(f"{index} is no index of weights: {error}") from None
    for name in names:
        if Path(name).name != name or not (index.parent / name).exists():
            raise SetupError(f"{index} names {name}, which is not in its folder: download it, too")
    return tuple(index.parent / name for name in names)


def why_none(folder: Path) -> str:
    parts = sorted(path.name for path in folder.glob("*-of-*")) if folder.is_dir() else []
    if parts:
        return f"{parts[0]} is one of several files, and the .index.json that lists them is missing: download it, too"
    return f"expected one of {', '.join(f'{stem}.safetensors' for stem in STEMS)}"


def spare_weights(folder: Path) -> list[Path]:
    """Other forms of the weights that are read: what is in them decides nothing."""
    others = [path for path in folder.iterdir() if ONE_OF_MANY.fullmatch(path.name)]
    try:
        weights = find_weights(folder) if others else Weights(())
    except SetupError:
        return []
    return [path for path in others if path not in weights.files and path != weights.index]


def is_pointer(path: Path) -> bool:
    """Whether it is what `git clone` leaves in place of a large file where Git LFS is not installed."""
    with path.open("rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER
