"""The tensors of ``diffusion_step`` for guided purity sampling, in the contract's order, without a worker."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from service.condition import Condition
from service.diffusion.noise import uniforms
from service.lab.bench.gpu.networks import Network

Step = Callable[[list[Tensor]], tuple[Tensor, Tensor]]
"""The contract's inputs on the CPU → (tokens, purity), there too."""
SCALE = 3.0
NULL_SEED = 2**31


def masked(network: Network, rows: int) -> Tensor:
    return torch.full([rows, network.config.tokens], network.config.codes, dtype=torch.int32)


def inputs_of(
    network: Network, seeds: Sequence[int], tokens: Tensor, first: Sequence[int], count: int, truncation: float = 1.0
) -> list[Tensor]:
    """``count`` evaluations of a row for each seed; ``first``: how many each has had."""
    config, rows = network.config, len(seeds)
    total = network.evaluations
    share = -(-config.tokens // total)
    done = torch.tensor(first)[:, None] + torch.arange(count)
    timestep = ((1 - done * share / config.tokens).clamp(0, 1) * (config.timesteps - 1)).round().int()
    each, none = torch.ones([rows, count]), torch.zeros([rows, count], dtype=torch.int32)
    noise = [uniforms(seed, 0, start, count, config.tokens) for seed, start in zip(seeds, first, strict=True)]
    return [
        tokens,
        torch.full_like(tokens, -1),
        conditions_of(network, seeds),
        timestep,
        torch.full_like(timestep, -1),
        torch.tensor([SCALE, 1 - SCALE]).expand(rows, count, 2).contiguous(),
        torch.full_like(none, share),
        none,
        none,
        torch.tensor([1.0, 0.0, 1.0, 0.0]).expand(rows, count, 4).contiguous(),
        torch.zeros([rows, count, 4]),
        torch.zeros(tokens.shape),
        each,
        each,
        each * truncation,
        torch.zeros([rows, 1], dtype=torch.int32),
        torch.from_numpy(np.stack(noise)),
    ]


def conditions_of(network: Network, seeds: Sequence[int]) -> Tensor:
    """Each row's condition and the null that all share, [B, 2, …]."""
    if network.config.condition is Condition.LABEL:
        classes = network.config.classes
        return torch.tensor([[seed % classes, classes] for seed in seeds])
    both = [[states(network, seed), states(network, NULL_SEED)] for seed in seeds]
    return torch.stack([torch.stack(pair) for pair in both])


def states(network: Network, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn([network.texts, network.config.text_width], generator=generator).half()


def paint(network: Network, step: Step, seeds: Sequence[int], per_call: int, evaluations: int | None = None) -> Tensor:
    """The grids of a batch after all its evaluations, or so many."""
    tokens, total = masked(network, len(seeds)), evaluations or network.evaluations
    for start in range(0, total, per_call):
        count = min(per_call, total - start)
        tokens, _ = step(inputs_of(network, seeds, tokens, [start] * len(seeds), count))
    return tokens
