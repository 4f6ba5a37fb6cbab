"""``diffusion_step`` on a GPU: every evaluation is the replay of a CUDA graph, recorded once for each size.

``export`` copies this file beside model.py, so it imports nothing of this package.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

SEGMENT = 16
"""Evaluations whose inputs are uploaded together."""
CONDITIONS, WEIGHTS, REVEAL, REMASK, REVISE, TRUNCATION = 2, 5, 6, 7, 8, 14
"""Places in the contract's list of inputs."""
WHOLE = (0, 1, CONDITIONS, 11, 15)
"""Places of those that are the same in every evaluation."""
INPUTS = 17
CONDITIONS_AT_MOST = 2
"""Of a row: the prompt and what it is led away from."""
WARM_UPS = 2


def size_above(count: int) -> int:
    """The next of the sizes that graphs are recorded for: 1 to 8, 10, 12, 14, 16, 20 …, four for each doubling."""
    step = 1 << max(0, count.bit_length() - 3)
    return -(-count // step) * step


def needs_of(inputs: Sequence[Tensor]) -> list[bool]:
    """What ``service.diffusion.evaluation.needs_of`` says, of all evaluations at once and without asking the GPU."""
    several = (inputs[WEIGHTS] != 0).sum(2) > 1
    retiring = (inputs[REMASK] > 0).any() | (inputs[REVISE] > 0).any()
    return [bool(x) for x in (several.any(), (inputs[TRUNCATION] < 1).any(), (inputs[REVEAL] < 0).any(), retiring)]


class Graphs:
    """A ``DiffusionStep``, scripted or not. ``rows``: the most that a call may have.

    ``passes``: how many pairs of row and condition the network takes at a time, 0 for all at once. With one shape
    there is one kernel for each product, and a row's bits cannot depend on how many others are in its call.
    On a CPU, as in tests, nothing is recorded.
    """

    def __init__(self, step: Any, rows: int, passes: int = 0, device: str = "cuda") -> None:
        self.step, self.rows, self.passes = step, size_above(rows), passes
        self.device = torch.device(device)
        self.inputs: list[Tensor] = []
        self.recorded: dict[tuple[Any, ...], Callable[[], object]] = {}
        self.pool: Any = None

    @torch.inference_mode()
    def __call__(self, given: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The contract's inputs in order, on the CPU → (tokens_out INT32, purity FP16), both [B, L]."""
        inputs = list(given)
        if len(inputs) < INPUTS:  # a model that is conditioned on nothing has no such input
            inputs.insert(CONDITIONS, torch.zeros([len(inputs[0]), CONDITIONS_AT_MOST], dtype=torch.long))
        conditions = inputs[CONDITIONS] if inputs[CONDITIONS].is_floating_point() else inputs[CONDITIONS].long()
        inputs[CONDITIONS] = inputs[1] = inputs[1].long()
        inputs[0] = torch.where(inputs[1] < 0, inputs[0].long(), inputs[1])
        rows, evaluations, count = inputs[WEIGHTS].shape
        used = (inputs[WEIGHTS] != 0).permute(1, 2, 0)  # [k, C, B]
        known = used.any(0).nonzero()
        places = torch.zeros(used.shape[1:], dtype=torch.long)
        places[known[:, 0], known[:, 1]] = torch.arange(len(known))
        self.allocate(inputs)
        self.remember(conditions[known[:, 1], known[:, 0]])
        put(self.grid, inputs[0])
        for start in range(0, evaluations, SEGMENT):
            segment = [x if i in WHOLE else x[:, start : start + SEGMENT] for i, x in enumerate(inputs)]
            for static, value in zip(self.inputs, segment, strict=True):
                put(static, value)
            self.e.zero_()
            needs, before, pairs = needs_of(segment), torch.empty(0), 0
            for e in range(segment[WEIGHTS].shape[1]):
                here = used[start + e].nonzero()
                if not torch.equal(here, before):
                    before, pairs = here, self.padded_count(len(here))
                    self.put_pairs(torch.cat([here, places[here[:, 0], here[:, 1], None]], 1), pairs)
                self.evaluation(size_above(rows), pairs, count, needs)()
        return self.grid[:rows].int().cpu(), self.purity[:rows].half().cpu()

    def padded_count(self, pairs: int) -> int:
        at_once = self.passes or 1
        return at_once * size_above(-(-pairs // at_once))

    def allocate(self, inputs: Sequence[Tensor]) -> None:
        """Once: every graph reads and writes the same places."""
        if self.inputs:
            return
        for i, like in enumerate(inputs):
            dims = list(like.shape[1:])
            dims[:1] = dims[:1] if i in WHOLE else [SEGMENT]
            dims[1:] = [CONDITIONS_AT_MOST] if i == WEIGHTS else dims[1:]
            self.inputs.append(torch.zeros([self.rows, *dims], dtype=like.dtype, device=self.device))
        self.grid = torch.zeros_like(self.inputs[0])
        self.purity = torch.zeros(self.grid.shape, device=self.device)
        self.e = torch.zeros(1, dtype=torch.long, device=self.device)
        most = self.padded_count(CONDITIONS_AT_MOST * self.rows)
        self.pairs = [torch.zeros(most, dtype=torch.long, device=self.device) for _ in range(3)]

    def remember(self, conditions: Tensor) -> None:
        """The network's memory of P conditions [P, …], into its place; worked out ``passes`` at a time, too."""
        at_once = self.passes or self.padded_count(len(conditions))
        parts = conditions.to(self.device).split(at_once)
        known = torch.cat([self.step.memory_of(padded(part, at_once))[:, :, : len(part)] for part in parts], 2)
        if not hasattr(self, "memory"):
            shape = list(known.shape)
            shape[2] = len(self.pairs[0])
            self.memory = torch.zeros(shape, dtype=known.dtype, device=self.device)
        self.memory[:, :, : known.shape[2]] = known

    def put_pairs(self, pairs: Tensor, count: int) -> None:
        """Condition, row and place in memory of each pair [P, 3]; up to ``count`` they are copies of the last."""
        condition, row, place = padded(pairs, count).to(self.device).unbind(1)
        for static, value in zip(self.pairs, (row, condition, place), strict=True):
            static[:count].copy_(value)

    def evaluation(self, rows: int, pairs: int, conditions: int, needs: list[bool]) -> Callable[[], object]:
        """What does the next evaluation of what has been put in."""
        key = (rows, pairs, conditions, *needs)
        if key not in self.recorded:
            inputs = [x[:rows] for x in self.inputs]
            inputs[WEIGHTS] = inputs[WEIGHTS][:, :, :conditions]
            chosen = [x[:pairs] for x in self.pairs]

            def once() -> None:
                at_once = self.passes or pairs
                x, purity = self.step.replay(self.grid[:rows], inputs, self.memory, chosen, self.e, needs, at_once)
                self.grid[:rows].copy_(x)
                self.purity[:rows].copy_(purity)
                self.e.add_(1)

            self.recorded[key] = self.record(once) if self.device.type == "cuda" else once
        return self.recorded[key]

    def record(self, once: Callable[[], None]) -> Callable[[], object]:
        """Run it some times, for libraries choose and allocate at first, then record; grid and ``e`` stay the same."""
        grid, e = self.grid.clone(), self.e.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                once()
                self.e.copy_(e)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            once()
        self.pool = self.pool or graph.pool()
        self.grid.copy_(grid)
        self.e.copy_(e)
        return graph.replay


def put(static: Tensor, value: Tensor) -> None:
    """Into the first rows and evaluations; the rows up to the next size are copies of the last."""
    value = padded(value, size_above(len(value)))
    static[tuple(slice(size) for size in value.shape)].copy_(value)


def padded(tensor: Tensor, rows: int) -> Tensor:
    """With copies of its last row."""
    missing = rows - len(tensor)
    return torch.cat([tensor, tensor[-1:].expand(missing, *tensor.shape[1:])]) if missing else tensor
