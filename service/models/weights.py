"""Weights of a model folder's part: read from whatever file holds them, and put into its module."""

import pickle
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from service.errors import SetupError

WEIGHTS = ("diffusion_pytorch_model", "model", "pytorch_model")
M = TypeVar("M", bound=nn.Module)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The state dict in ``folder``, float32: safetensors, or a ``.bin`` read with weights_only. Raises SetupError."""
    for stem in WEIGHTS:
        safe, pickled = folder / f"{stem}.safetensors", folder / f"{stem}.bin"
        try:
            if safe.exists():
                state = load_file(safe)
            elif pickled.exists():
                state = torch.load(pickled, map_location="cpu", weights_only=True)
            else:
                continue
        except (SafetensorError, RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
            raise SetupError(f"{folder}: the weights cannot be read: {error}") from error
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise SetupError(f"{pickled}: holds something else than a state dict")
        return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    raise SetupError(
        f"{folder} holds no weights: expected one of {', '.join(f'{stem}.safetensors' for stem in WEIGHTS)}"
    )


def fill(module: M, state: dict[str, Tensor], folder: Path) -> M:
    """Load a state dict that must fit exactly. Raises SetupError naming the first tensors that do not."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:500]
        raise SetupError(f"{folder}: the weights do not fit the config: {reason}") from None
    return module.eval().requires_grad_(False)
