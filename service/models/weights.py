"""Weights of a model folder's part: read from whatever files hold them, and put into its module."""

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from service.errors import SetupError
from service.models.card import refuse_pointer
from service.models.weight_files import find_weights

M = TypeVar("M", bound=nn.Module)


def read_weights(
    folder: Path, dtype: torch.dtype = torch.float32, on_share: Callable[[float], object] = lambda _: None
) -> dict[str, Tensor]:
    """The state dict in ``folder``, its floats as ``dtype``; ``on_share`` is told how much of it is read.

    What has that type already stays in the file, mapped: it may be written to, and the file stays as it is. Raises
    SetupError naming the file, and the tensor that is not finite.
    """
    files = find_weights(folder).files
    total, read = sum(path.stat().st_size for path in files), 0
    state: dict[str, Tensor] = {}
    for path in files:
        refuse_pointer(path)
        for name, value in tensors_of(path):
            state[name] = as_type(value, dtype, f"{path}: {name}")
            read += value.nbytes
            on_share(read / total)
    return state


def tensors_of(path: Path) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) one by one, mapped. Raises SetupError for what cannot be read."""
    try:
        yield from (safe_tensors if path.suffix == ".safetensors" else pickled_tensors)(path)
    except (SafetensorError, RuntimeError, OSError, EOFError) as error:
        raise SetupError(f"{path}: the weights cannot be read: {error}") from error
    except pickle.UnpicklingError:  # torch's own words advise to run what is in it
        raise SetupError(
            f"{path} holds something else than tensors, or is no file of torch's: it is not loaded, as that could run "
            "code of a stranger; save its weights as safetensors"
        ) from None


def safe_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    with safe_open(path, "pt") as file:
        names = list(file.keys())
    for name in names:
        with safe_open(path, "pt") as file:  # a mapping for each, which goes when its tensor does
            value = file.get_tensor(name)
        yield name, value


def pickled_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, ValueError):  # of before torch 1.6, which is no zip and cannot be mapped
        state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise SetupError(f"{path}: holds something else than a state dict")
    while state:
        name = next(iter(state))
        yield name, state.pop(name)


def as_type(value: Tensor, dtype: torch.dtype, where: str) -> Tensor:
    if not value.is_floating_point():
        return value
    converted = value.to(dtype)
    # A sum is quick and takes no memory; that of finite numbers may be too large, but hardly ever is.
    if bool(converted.sum(dtype=torch.float32).isfinite()) or bool(converted.isfinite().all()):
        return converted
    if bool(value.isfinite().all()):
        raise SetupError(f"{where} has numbers that are too large for {dtype}: export as bf16 or fp32")
    raise SetupError(f"{where} has values that are no numbers (NaN or infinite): the file is damaged, or its training")


def fill(module: M, state: dict[str, Tensor], folder: Path) -> M:
    """Give a module its weights, which must fit exactly: these very tensors, so it may have been built without any.

    Raises SetupError naming the first tensors that do not fit.
    """
    try:
        module.load_state_dict(state, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:500]
        raise SetupError(f"{folder}: the weights do not fit the config: {reason}") from None
    blank = [name for name, buffer in module.named_buffers() if buffer.is_meta]
    assert not blank, f"a module must compute from its weights what it does not save: {blank}"
    return module.eval().requires_grad_(False)
