"""The official checkpoints in miniature, converted, and what the official code computed from them.

They lie beside the repository, or where OFFICIAL_FIXTURES says; one folder each, as their README describes.
"""

import io
import json
import os
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers.official_step import Settings, evaluate, inputs_of
from torch import Tensor
from tqdm import tqdm

from service.diffusion.guidance import normalise, truncate
from service.diffusion.posterior import posterior
from service.diffusion.schedule import Schedule
from service.models.convert.convert import convert
from service.models.convert.understanding import Options
from service.models.folder import LoadedModel, load_model

FIXTURES = Path(os.environ.get("OFFICIAL_FIXTURES", Path(__file__).parents[3] / "shared/fixtures/official"))
FAMILIES = sorted(path.parent.name for path in FIXTURES.glob("*/golden.npz"))
MISSING = f"there are no official checkpoints in {FIXTURES}"
PLAIN = "plain"


def quiet() -> "tqdm[Any]":
    return tqdm(file=io.StringIO())


def convert_family(folder: Path, to: Path) -> list[str]:
    """Convert what is in a fixture's folder, its yaml saying what the checkpoint does not."""
    mapping, tokenizer = [*folder.glob("*.pt"), None][0], folder / "tokenizer"
    options = Options(mapping, tokenizer if tokenizer.exists() else None, folder / "config.yaml")
    (checkpoint,) = folder.glob("*.pth")
    return list(convert(checkpoint, to, options, quiet()))


class Port:
    """One family: the official figures, and the converted folder as the service loads it."""

    def __init__(self, name: str, to: Path) -> None:
        convert_family(FIXTURES / name, to)
        self.model: LoadedModel = load_model(to)
        with np.load(FIXTURES / name / "golden.npz") as arrays:
            self.golden = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        self.steps: dict[str, Tensor] = {}

    @cached_property
    def prompts(self) -> dict[str, list[str]]:
        (path,) = FIXTURES.glob(f"*/{self.model.info.name}.pth")
        found: dict[str, list[str]] = json.loads((path.parent / "prompts.json").read_text())
        return found

    def number(self, key: str) -> float:
        return float(self.golden[key])

    @cached_property
    def condition(self) -> Tensor:
        """Of each row: states as they are given, labels, or zeros that nobody reads."""
        rows = self.golden["step_tokens"].shape[0]
        return self.golden.get("condition", self.golden.get("label", torch.zeros(rows, dtype=torch.int64)))

    @cached_property
    def null(self) -> Tensor:
        """The same of the null."""
        if "null" in self.golden:
            return self.golden["null"].float().expand(len(self.condition), -1, -1)
        classes = self.model.transformer.state_dict()["transformer_blocks.0.norm3.emb.weight"].shape[0] - 1
        return torch.full_like(self.condition, classes)

    @property
    def guided(self) -> bool:
        return "logits_null" in self.golden

    def logits(self, key: str, tokens: Tensor, timestep: Tensor) -> Tensor:
        """``key`` is logits or logits_null."""
        network = self.model.transformer
        memory = network.memory(self.null if key == "logits_null" else self.condition)
        return network(tokens.long(), timestep.long(), memory)

    @cached_property
    def both_logits(self) -> dict[str, Tensor]:
        keys = ("logits", "logits_null") if self.guided else ("logits",)
        pairs = list(zip(self.golden["tokens"], self.golden["timestep"], strict=True))
        return {key: torch.stack([self.logits(key, *pair) for pair in pairs]) for key in keys}

    def predicted(self, logits: dict[str, Tensor], guided: bool, truncated: bool) -> Tensor:
        """log p(x_0) [B, L, K] from logits of both kinds."""
        log_p = normalise(logits["logits"])
        if guided:
            null, s = normalise(logits["logits_null"]), self.number("guidance_scale")
            log_p = normalise(null + s * (log_p - null))
        rate = torch.full((len(log_p),), self.number("truncation_rate"))
        return truncate(log_p, rate) if truncated else log_p

    def log_p(self, guided: bool = False, truncated: bool = False) -> Tensor:
        """Of the two batches [2, B, L, K]."""
        both = [{key: value[i] for key, value in self.both_logits.items()} for i in range(2)]
        return torch.stack([self.predicted(logits, guided, truncated) for logits in both])

    def posteriors(self, log_p: Tensor) -> Tensor:
        """p(x_{t-1} | x_t) [2, B, L, K + 1] of the two batches."""
        schedule, found = Schedule(self.model.info.timesteps, self.model.info.codes), []
        for tokens, timestep, one in zip(self.golden["tokens"], self.golden["timestep"], log_p, strict=True):
            t = timestep.long()
            found.append(posterior(one.exp(), tokens.long(), t == 0, schedule(t, t - 1)))
        return torch.stack(found)

    def step_logits(self) -> dict[str, Tensor]:
        keys = ("logits", "logits_null") if self.guided else ("logits",)
        return {key: self.logits(key, self.golden["step_tokens"], self.golden["step_timestep"]) for key in keys}

    def step(self, rule: str, variant: str) -> Tensor:
        """The tokens after one evaluation of the ``uniform`` (rule1) or ``purity`` sampler (rule2)."""
        at = self.golden["step_timestep"]
        settings = Settings(
            guidance=self.number("guidance_scale") if "guided" in variant else 1.0,
            truncation=self.number("truncation_rate") if "truncated" in variant else 1.0,
            r=self.number("purity_r"),
            by_purity=rule == "rule2",
        )
        count = self.golden["step_count"].expand_as(at)
        inputs = inputs_of(
            self.model.info.condition, self.condition, self.null if self.guided else None, self.golden["step_tokens"],
            torch.stack([at, at - 1]), count, self.golden["step_uniforms"], settings,
        )  # fmt: skip
        return evaluate(self.model, inputs)

    def run(self, name: str, call: Callable[[dict[str, Tensor]], Tensor] | None = None) -> Tensor:
        """The tokens after a whole run of the first row; ``call`` makes an evaluation, by default in this process."""
        call = call or partial(evaluate, self.model)
        guidance, truncation, r = self.golden[f"run_{name}_settings"].tolist()
        settings = Settings(guidance, truncation, r, by_purity=name == "purity")
        walk, counts = self.golden[f"run_{name}_timestep"], self.golden[f"run_{name}_count"]
        tokens = torch.full_like(self.golden[f"run_{name}_tokens"], self.model.info.codes)
        null = self.null[:1] if self.guided else None
        for t, count, uniforms in zip(walk, counts, self.golden[f"run_{name}_uniforms"], strict=True):
            times = torch.stack([t, t - 1])[:, None]
            kind, condition = self.model.info.condition, self.condition[:1]
            tokens = call(inputs_of(kind, condition, null, tokens, times, count[None], uniforms[None], settings))
        return tokens
