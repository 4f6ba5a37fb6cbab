"""The exported TorchScript modules in this process, without any service: what a plain loop over them would do.

The tensors of every call are made by the worker's own functions, so both sides compute the same thing.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from service.engine.prompts import Prompts, Tokenised
from service.engine.scheduler import Call
from service.gateway.schemas import GenerateRequest
from service.gateway.validation import resolve
from service.lab.bench.cases import Fields
from service.messages import Job, ModelInfo, Priority
from service.queue.queue import Lease
from service.triton.contract import MODELS, Float16, UInt8
from service.triton.repository import read_repository
from service.worker.running import RunningJob, make_batch, make_rows


def new_lease(fields: Fields, info: ModelInfo) -> Lease:
    """A request as the worker would get it from the queue. ``n`` is 1."""
    body = GenerateRequest.model_validate(fields)
    job = Job(
        id=f"{body.seed}",
        model=info.name,
        prompt=body.prompt,
        negative_prompt=body.negative_prompt,
        parameters=resolve(body, info),
        priority=Priority.INTERACTIVE,
    )
    return Lease(job, epoch=1, stream="", entry_id="", attempts=1, evaluation=0, checkpoint=None, claimed_ms=0)


class Bare:
    """The three modules of an exported ``repository`` (backend python or pytorch: the files are the same)."""

    def __init__(self, repository: Path) -> None:
        self.info, tokenizer = read_repository(repository)
        self.prompts = Prompts(tokenizer, self.info)
        paths = {model.name: repository / model.name / "1" / "model.pt" for model in MODELS}
        self.modules: dict[str, Any] = {name: torch.jit.load(str(path)).eval() for name, path in paths.items()}
        self.null = self.encode([self.prompts.tokenise_negative(None)])[0]

    @torch.inference_mode()
    def call(self, model: str, *arrays: np.ndarray[Any, Any]) -> Any:
        """Threads as in Triton's stub: the module spreads over the cores by itself, each operator has one."""
        cores, module = torch.get_num_threads(), self.modules[model]
        module.parts = cores
        torch.set_num_threads(1)
        try:
            return module(*map(torch.from_numpy, arrays))
        finally:
            torch.set_num_threads(cores)

    def states(self, prompts: Sequence[str], negatives: Sequence[str | None]) -> Float16:
        """[2B, S, D]: each prompt's states, then its negative prompt's or the null's; encoded as the worker does."""
        pairs = zip(map(self.prompts.tokenise, prompts), map(self.prompts.tokenise_negative, negatives), strict=True)
        texts = [text for pair in pairs for text in pair]
        others = iter(self.encode([text for text in texts if not text.is_null]))
        return np.stack([self.null if text.is_null else next(others) for text in texts])

    def encode(self, texts: Sequence[Tokenised]) -> Float16:
        ids, mask = np.stack([text.ids for text in texts]), np.stack([text.mask for text in texts])
        states: Float16 = self.call("text_encoder", ids, mask).numpy()
        return states

    def begin(self, cases: Sequence[Fields]) -> list[RunningJob]:
        """Encode the prompts together."""
        leases = [new_lease(fields, self.info) for fields in cases]
        states = self.states([lease.job.prompt for lease in leases], [lease.job.negative_prompt for lease in leases])
        return [
            RunningJob(lease, self.info, make_rows(lease, self.info), states[2 * i], states[2 * i + 1], 0.0, 0.0)
            for i, lease in enumerate(leases)
        ]

    def advance(self, jobs: Sequence[RunningJob], evaluations: int) -> None:
        """One step call that carries every job's row."""
        call = Call(tuple(job.rows[0] for job in jobs), evaluations)
        grids, _ = self.call("diffusion_step", *make_batch(call, jobs).arrays().values())
        for row, grid in zip(call.rows, grids.numpy(), strict=True):
            row.tokens, row.evaluation = grid, row.evaluation + evaluations

    def decode(self, jobs: Sequence[RunningJob]) -> UInt8:
        pictures: UInt8 = self.call("image_decoder", np.stack([job.rows[0].tokens for job in jobs])).numpy()
        return pictures

    def generate(self, cases: Sequence[Fields], calls: int = 1) -> list[RunningJob]:
        """``cases`` (plans of one length) as one batch: encode, at most ``calls`` step calls, decode."""
        jobs = self.begin(cases)
        rows = [job.rows[0] for job in jobs]
        per_call = -(-rows[0].remaining // calls)
        while left := rows[0].remaining:
            self.advance(jobs, min(per_call, left))
        self.decode(jobs)
        return jobs

    def seconds(self, cases: Sequence[Fields], calls: int = 1) -> float:
        began = time.perf_counter()
        self.generate(cases, calls)
        return time.perf_counter() - began
