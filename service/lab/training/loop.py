"""What every training run shares: resumable checkpoints, a progress bar and a log of the curves."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

from service.errors import SetupError


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


class SavedRun:
    """Everything needed to continue a run bit for bit: parts, step and random state. Written atomically."""

    def __init__(self, path: Path, parts: dict[str, Stateful], generator: torch.Generator) -> None:
        self.path, self.parts, self.generator = path, parts, generator

    def save(self, step: int) -> None:
        state: dict[str, Any] = {name: part.state_dict() for name, part in self.parts.items()}
        temporary = self.path.with_suffix(".tmp")
        torch.save({"step": step, "random": self.generator.get_state(), **state}, temporary)
        temporary.replace(self.path)

    def load(self) -> int:
        """Restore the last save, if there is one; returns the number of steps already done.

        Raises SetupError for a file that an earlier version of this training has left.
        """
        if not self.path.exists():
            return 0
        state = torch.load(self.path, weights_only=True)
        if missing := sorted(self.parts.keys() - state.keys()):
            raise SetupError(f"{self.path} is of another version: it lacks {', '.join(missing)}; delete it")
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.generator.set_state(state["random"])
        return int(state["step"])


def training_steps(
    name: str, steps: int, checkpoint: SavedRun, save_every_s: float = 60.0
) -> Iterator[tuple[int, Callable[..., None]]]:
    """Yield (step, log) for the steps still to do; saves now and then, and at the end.

    ``log(**values)`` shows the values in the bar and appends them to ``NAME.jsonl`` beside the checkpoint.
    """
    checkpoint.path.parent.mkdir(parents=True, exist_ok=True)
    first = checkpoint.load()
    saved = time.monotonic()
    with (
        tqdm(total=steps, initial=first, desc=name, mininterval=2.0) as bar,
        (checkpoint.path.parent / f"{name}.jsonl").open("a") as curve,
    ):
        for step in range(first, steps):

            def log(step: int = step, **values: float) -> None:
                bar.set_postfix({k: f"{v:.4g}" for k, v in values.items()}, refresh=False)
                curve.write(json.dumps({"step": step, **values}) + "\n")

            yield step, log
            bar.update()
            if time.monotonic() - saved > save_every_s or step + 1 == steps:
                curve.flush()
                checkpoint.save(step + 1)
                saved = time.monotonic()
