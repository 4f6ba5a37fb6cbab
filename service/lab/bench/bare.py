"""The exported TorchScript modules in this process, without any service: what a plain loop over them would do.

The tensors of every call are made by the worker's own engine, so both sides compute the same thing.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from service.diffusion.samplers import make_plan
from service.engine.batch import make_batch
from service.engine.prompts import PromptTokenizer, Tokenised
from service.engine.row import Row, masked
from service.gateway.schemas import GenerateRequest
from service.gateway.validation import resolve
from service.lab.bench.cases import Fields
from service.lab.bench.loaded import load_exported
from service.messages import Parameters
from service.serving import ModelInfo
from service.triton.contract import Array, Float16, UInt8
from service.triton.repository import read_repository


@dataclass(frozen=True)
class Wanted:
    """One picture: what a request comes to."""

    prompt: str
    negative_prompt: str | None
    parameters: Parameters

    @classmethod
    def of(cls, fields: Fields, info: ModelInfo) -> Self:
        """Of a body of ``POST /generate`` whose ``n`` is 1."""
        body = GenerateRequest.model_validate(fields)
        return cls(body.prompt or "", body.negative_prompt, resolve(body, info))


class Bare:
    """The three modules of an exported ``repository``, of any backend but TensorRT."""

    def __init__(self, repository: Path) -> None:
        self.info, tokenizer = read_repository(repository)
        assert tokenizer is not None, "for models that are conditioned on text"
        self.prompts = PromptTokenizer(tokenizer, self.info)
        self.modules: dict[str, Any] = {
            name: load_exported(repository / name / "1") for name in ("text_encoder", "diffusion_step", "image_decoder")
        }
        self.null = self.encode([self.prompts.tokenise_negative(None)])[0]

    def call(self, model: str, **arrays: Array) -> Any:
        return run(self.modules[model], arrays)

    def states(self, prompts: Sequence[str], negatives: Sequence[str | None], null: Float16 | None = None) -> Float16:
        """[2B, S, D]: each prompt's states, then its negative prompt's or the null's; encoded as the worker does.

        ``null``: in place of the model's.
        """
        pairs = zip(map(self.prompts.tokenise, prompts), map(self.prompts.tokenise_negative, negatives), strict=True)
        texts = [text for pair in pairs for text in pair]
        others = iter(self.encode([text for text in texts if not text.is_null]))
        known = self.null if null is None else null
        return np.stack([known if text.is_null else next(others) for text in texts])

    def encode(self, texts: Sequence[Tokenised]) -> Float16:
        ids, mask = np.stack([text.ids for text in texts]), np.stack([text.mask for text in texts])
        states: Float16 = self.call("text_encoder", input_ids=ids, attention_mask=mask).numpy()
        return states

    def begin(self, cases: Sequence[Fields]) -> list[Row]:
        """A row per case, with the prompts encoded together."""
        return self.rows([Wanted.of(fields, self.info) for fields in cases])

    def rows(self, wanted: Sequence[Wanted], null: Float16 | None = None) -> list[Row]:
        states = self.states([one.prompt for one in wanted], [one.negative_prompt for one in wanted], null)
        info = self.info
        return [
            Row(
                parameters=one.parameters,
                image=0,
                plan=make_plan(one.parameters, info.tokens, info.timesteps),
                tokens=masked(info.tokens, info.codes),
                conditions=(states[2 * i], states[2 * i + 1]),
            )
            for i, one in enumerate(wanted)
        ]

    def advance(self, rows: Sequence[Row], evaluations: int, step: Any = None) -> None:
        """One step call that carries every row. ``step``: a module in place of the exported one."""
        grids, _ = run(step or self.modules["diffusion_step"], make_batch(rows, evaluations).arrays())
        for row, grid in zip(rows, grids.numpy(), strict=True):
            row.advance(grid, evaluations)

    def decode(self, rows: Sequence[Row]) -> UInt8:
        pictures: UInt8 = self.call("image_decoder", tokens=np.stack([row.tokens for row in rows])).numpy()
        return pictures

    def generate(self, cases: Sequence[Fields], calls: int = 1) -> list[Row]:
        """``cases`` (plans of one length) as one batch: encode, at most ``calls`` step calls, decode."""
        rows = self.begin(cases)
        per_call = -(-rows[0].remaining // calls)
        while left := rows[0].remaining:
            self.advance(rows, min(per_call, left))
        self.decode(rows)
        return rows

    def seconds(self, cases: Sequence[Fields], calls: int = 1) -> float:
        began = time.perf_counter()
        self.generate(cases, calls)
        return time.perf_counter() - began


@torch.inference_mode()
def run(module: Any, arrays: Mapping[str, Array]) -> Any:
    """Threads as in Triton's stub: the module spreads over the cores by itself, each operator has one."""
    cores = torch.get_num_threads()
    module.parts = cores
    torch.set_num_threads(1)
    try:
        return module(**{name: torch.from_numpy(array) for name, array in arrays.items()})
    finally:
        torch.set_num_threads(cores)
