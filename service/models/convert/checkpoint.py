"""An official training checkpoint on disk. It is mapped, never read as a whole, and no code in it runs."""

import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from zipfile import is_zipfile

import torch
from torch import Tensor

from service.errors import SetupError
from service.models.card import refuse_pointer

CODEC = "content_codec."
DIFFUSION = "transformer."
"""Prefix of the diffusion module in ``model``. ``ema`` is that module alone, so its names have one less."""
NETWORK = "transformer."
"""Prefix of the network in the diffusion module."""
TEXT = "condition_emb."
NULL = "empty_text_embed"
TABLES = ("log_", "Lt_")
"""What begins the names of the schedule, and of what training counts."""
SHOWN = 3
ZIP_BEGIN = b"PK\x03\x04"


@dataclass(frozen=True)
class Checkpoint:
    """``averaged``: the weights are the moving average of training's, as official inference takes them."""

    path: Path
    averaged: bool
    state: dict[str, Tensor]
    """Names as in the diffusion module, and ``content_codec.``; every tensor is mapped from the file."""

    def fail(self, what: str) -> NoReturn:
        raise SetupError(f"{self.path}: {what}")

    def shape(self, name: str, dimensions: int | None = None) -> tuple[int, ...]:
        """Raises SetupError for a part that is missing, or has not so many ``dimensions``."""
        if name not in self.state:
            self.fail(f"{name} is missing; this is not the whole checkpoint of a VQ-Diffusion model")
        shape = tuple(self.state[name].shape)
        if dimensions not in (None, len(shape)) or 0 in shape:
            self.fail(f"{name} has the shape {list(shape)}, which no VQ-Diffusion model has there")
        return shape

    def count(self, before: str) -> int:
        """How many of the numbers 0, 1, 2 … follow ``before`` in some name."""
        n = 0
        while self.has(f"{before}{n}."):
            n += 1
        return n

    def has(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self.state)


def open_checkpoint(path: Path) -> Checkpoint:
    """What is in the file, once more mapped anew: drop it, and its pages go. Raises SetupError."""
    file = load(path)
    model = part(file, "model", path)
    if model is None:
        raise SetupError(
            f"{path} holds no 'model', so it is no checkpoint of VQ-Diffusion's training; it holds "
            f"{', '.join(map(str, list(file)[:SHOWN])) or 'nothing'}"
        )
    ema = part(file, "ema", path)
    state = {name: value for name, value in model.items() if name.startswith(CODEC)}
    whole = {name.removeprefix(DIFFUSION): value for name, value in model.items() if name.startswith(DIFFUSION)}
    if unknown := [name for name in model if not name.startswith((CODEC, DIFFUSION))]:
        raise SetupError(f"{path}: 'model' has {', '.join(unknown[:SHOWN])}, which no VQ-Diffusion model has")
    if ema:
        # What the average lacks comes from the model, as in official inference, but no half of a network does.
        whole = {name: value for name, value in whole.items() if not name.startswith(NETWORK)} | ema
    return Checkpoint(path, bool(ema), state | whole)


def load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise SetupError(f"{path}: there is no such checkpoint")
    refuse_pointer(path)
    if not is_zipfile(path):
        raise SetupError(f"{path} {why_no_zip(path)}")
    try:
        file = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise SetupError(
            f"{path} holds more than weights: {reason(error)}. Nothing of it was run; get the official file, "
            "or save its 'model' and 'ema' alone"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise SetupError(f"{path} cannot be read: {reason(error)}. Download it again") from None
    if not isinstance(file, dict):
        raise SetupError(f"{path} holds a {type(file).__name__}, not the dict of a training checkpoint")
    return file


def why_no_zip(path: Path) -> str:
    """A zip's list of contents is at its end."""
    with path.open("rb") as file:
        begins = file.read(len(ZIP_BEGIN)) == ZIP_BEGIN
    if begins:
        return "is cut short: download it again"
    return "is no checkpoint as torch saves it since 1.6; if it is an older one, load it with torch and save it again"


def reason(error: Exception) -> str:
    """The first sentence of torch's message that is about the file: the rest is advice to trust it."""
    told = str(error).rpartition("WeightsUnpickler error:")[2].strip()
    return re.split(r"\. |\n", told)[0][:200] or type(error).__name__


def part(file: dict[str, Any], key: str, path: Path) -> dict[str, Tensor] | None:
    """A state dict of the checkpoint, None when there is none. Raises SetupError for something else."""
    value = file.get(key)
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(v, Tensor) for v in value.values()):
        raise SetupError(f"{path}: {key!r} is not a state dict")
    return value
