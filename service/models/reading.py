"""The weights of a model folder as they are read: how far it is, and what somebody should know of them."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from service.models.weight_files import find_weights
from service.models.weights import read_weights

TELL_EVERY_S = 0.5


def silent(_: str) -> None:
    pass


@dataclass(frozen=True)
class Reading:
    """``dtype``: of the network, all else is float32. ``on_stage`` is told what goes on, ``on_note`` what is odd."""

    dtype: torch.dtype = torch.float32
    on_stage: Callable[[str], object] = silent
    on_note: Callable[[str], object] = silent

    def weights(self, folder: Path, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """As ``read_weights``."""
        if variant := find_weights(folder).variant:
            self.on_note(f"{folder}: these are the weights of variant {variant!r}, there are no others")
        told_s = time.monotonic()

        def on_share(share: float) -> None:
            nonlocal told_s
            if time.monotonic() - told_s > TELL_EVERY_S:
                told_s = time.monotonic()
                self.on_stage(f"reading {folder.name} {share:.0%}".replace("%", " %"))

        return read_weights(folder, dtype, on_share)


QUIET = Reading()
