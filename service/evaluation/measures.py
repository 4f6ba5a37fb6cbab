"""What pictures are measured by, once they are features (``features.py``). Exact functions of tensors, no model."""

import torch
from torch import Tensor


def square_root(matrix: Tensor) -> Tensor:
    """Of a symmetric positive semi-definite matrix [D, D]."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root


def frechet(a: Tensor, b: Tensor) -> float:
    """Squared Fréchet distance between the normal distributions with the moments of [N, D] and [M, D] (1706.08500)."""
    a, b = a.double(), b.double()
    of_means = (a.mean(0) - b.mean(0)).square().sum()
    cov_a, cov_b = a.T.cov(), b.T.cov()
    root = square_root(cov_a)
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return float(of_means + cov_a.trace() + cov_b.trace() - 2 * cross)


def ranks(pictures: Tensor, targets: Tensor, gallery: Tensor, owners: Tensor) -> Tensor:
    """How many other emoji are nearer than the right one, INT64 [N]: 0 is a top-1 hit, below 5 a top-5 hit.

    ``pictures`` [N, D] and ``gallery`` [M, D] are unit features; ``targets`` [N] and ``owners`` [M] number the emoji,
    each of which is as near as the nearest of its gallery pictures.
    """
    similarity = pictures @ gallery.T
    nearest = torch.full((len(pictures), int(owners.max()) + 1), -torch.inf)
    nearest.scatter_reduce_(1, owners.expand(len(pictures), -1), similarity, "amax")
    return (nearest > nearest.gather(1, targets[:, None])).sum(1)


def diversity(pictures: Tensor, groups: Tensor) -> float:
    """Mean distance 1 - cosine between two pictures of one group (one prompt, other seeds). Unit features [N, D]."""
    distance = 1 - pictures @ pictures.T
    pairs = (groups[:, None] == groups[None]) & ~torch.eye(len(groups), dtype=torch.bool)
    return float(distance[pairs].mean())


def interval(values: Tensor, generator: torch.Generator, draws: int = 2000) -> tuple[float, float]:
    """The middle 95 % of the mean of [N] values under resampling (bootstrap)."""
    index = torch.randint(len(values), (draws, len(values)), generator=generator)
    means = values.double()[index].mean(1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
