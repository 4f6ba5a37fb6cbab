"""A part of the model folder as it will be: which tensor of the checkpoint becomes which of ours, and how."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from service.errors import SetupError
from service.models.convert.checkpoint import Checkpoint, open_checkpoint

SHARD = 2**30
"""Bytes of weights in one file, and so in memory at a time."""
FLOAT = 4


def as_it_is(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Source:
    """``name``: official. ``make`` turns that tensor into ours, of this ``shape``."""

    name: str
    shape: tuple[int, ...]
    make: Callable[[Tensor], Tensor] = as_it_is

    @property
    def size(self) -> int:
        return prod(self.shape) * FLOAT


@dataclass(frozen=True)
class Part:
    """``stem``: the weight file's name without its ending; ``config`` None: there is none to write."""

    folder: str
    stem: str
    config: dict[str, Any] | None
    sources: Mapping[str, Source]

    @property
    def size(self) -> int:
        return sum(source.size for source in self.sources.values())


def sources_for(
    module: nn.Module,
    names: Mapping[str, str],
    checkpoint: Checkpoint,
    special: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
) -> dict[str, Source]:
    """A source for each parameter of ``module``, which needs no weights: ``names`` ours → official.

    Raises SetupError for what is missing, and for a shape that is another one.
    """
    found = {}
    for ours, parameter in module.state_dict().items():
        make = (special or {}).get(ours, as_it_is)
        found_shape = checkpoint.shape(names[ours])
        try:
            shape = tuple(make(checkpoint.state[names[ours]].to("meta")).shape)
        except (RuntimeError, IndexError):  # too few dimensions or rows for it
            shape = ()
        if shape != tuple(parameter.shape):
            checkpoint.fail(
                f"{names[ours]} has the shape {list(found_shape)}, which does not fit the rest of "
                f"the checkpoint: as {ours} it must be {list(parameter.shape)}"
            )
        found[ours] = Source(names[ours], shape, make)
    return found


def refuse_extra(checkpoint: Checkpoint, prefix: str, used: Iterable[str], dropped: Callable[[str], bool]) -> None:
    """Raises SetupError for names with this prefix that nothing takes and nobody expects."""
    known = set(used)
    extra = [n for n in checkpoint.state if n.startswith(prefix) and n not in known and not dropped(n)]
    if extra:
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        checkpoint.fail(f"{extra[0]}{more} belongs to no part of a VQ-Diffusion model that is supported")


def write_part(
    part: Part, folder: Path, checkpoint: Path, on_bytes: Callable[[int], object], most: int = SHARD
) -> None:
    """Write the weights, shard by shard: the checkpoint is mapped anew for each. Raises SetupError."""
    place = folder / part.folder
    place.mkdir(parents=True, exist_ok=True)
    shards = split(part.sources, most)
    index: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        many = f"-{number:05}-of-{len(shards):05}" if len(shards) > 1 else ""
        file = f"{part.stem}{many}.safetensors"
        write_shard(place / file, {name: part.sources[name] for name in names}, checkpoint, on_bytes)
        index |= dict.fromkeys(names, file)
    if len(shards) > 1:
        listing = {"metadata": {"total_size": part.size}, "weight_map": index}
        write_json(place / f"{part.stem}.safetensors.index.json", listing)
    if part.config is not None:
        write_json(place / "config.json", part.config)


def split(sources: Mapping[str, Source], most: int) -> list[list[str]]:
    """Names in their order, each list of at most ``most`` bytes, or of one tensor."""
    shards: list[list[str]] = [[]]  # of nothing an empty file: diffusers asks for one
    size = 0
    for name, source in sources.items():
        if shards[-1] and size + source.size > most:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += source.size
    return shards


def write_shard(path: Path, sources: Mapping[str, Source], checkpoint: Path, on_bytes: Callable[[int], object]) -> None:
    state = open_checkpoint(checkpoint).state
    tensors = {}
    for name, source in sources.items():
        tensors[name] = whole(source, state, checkpoint)
        on_bytes(source.size)
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except (SafetensorError, OSError) as error:
        raise SetupError(f"cannot write {path}: {error}") from error
    path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors lets only its own user read it


def whole(source: Source, state: Mapping[str, Tensor], checkpoint: Path) -> Tensor:
    """Ours, floats as float32. Raises SetupError for values that are no numbers."""
    given = state[source.name]
    low, high = given.aminmax()
    if not bool(low.isfinite() & high.isfinite()):
        raise SetupError(
            f"{checkpoint}: {source.name} has values that are not finite (NaN or infinite): its training broke down, "
            "or the file is damaged"
        )
    made = source.make(given)
    return (made.float() if made.is_floating_point() else made).contiguous()


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
