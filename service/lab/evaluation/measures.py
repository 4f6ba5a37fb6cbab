"""What pictures are measured by, once they are features (``features.py``). Exact functions of tensors, no model."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

GROUPS = ("held out", "seen")
"""Prompts of pictures that training left out, and of pictures that it saw."""


def square_root(matrix: Tensor) -> Tensor:
    """Of a symmetric positive semi-definite matrix [D, D]."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root


@dataclass(frozen=True)
class Normal:
    """The normal distribution with the moments of features: ``mean`` [D], ``covariance`` [D, D], and its root."""

    mean: Tensor
    covariance: Tensor
    root: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Self:
        covariance = features.double().T.cov()
        return cls(features.double().mean(0), covariance, square_root(covariance))


def frechet(features: Tensor, reference: Normal) -> float:
    """Squared Fréchet distance between the normal distribution with the moments of [N, D] and ``reference``
    (1706.08500)."""
    features = features.double()
    of_means = (features.mean(0) - reference.mean).square().sum()
    covariance = features.T.cov()
    cross = torch.linalg.eigvalsh(reference.root @ covariance @ reference.root).clamp(min=0).sqrt().sum()
    return float(of_means + covariance.trace() + reference.covariance.trace() - 2 * cross)


def ranks(pictures: Tensor, targets: Tensor, gallery: Tensor, owners: Tensor) -> Tensor:
    """How many other emoji are nearer than the right one, INT64 [N]: 0 is a top-1 hit, below 5 a top-5 hit.

    ``pictures`` [N, D] and ``gallery`` [M, D] are unit features; ``targets`` [N] and ``owners`` [M] number the emoji,
    each of which is as near as the nearest of its gallery pictures.
    """
    similarity = pictures @ gallery.T
    nearest = torch.full((len(pictures), int(owners.max()) + 1), -torch.inf)
    nearest.scatter_reduce_(1, owners.expand(len(pictures), -1), similarity, "amax")
    return (nearest > nearest.gather(1, targets[:, None])).sum(1)


def own_is_nearest(drawn: Tensor, places: Tensor, pictures: Tensor, owners: Tensor) -> Tensor:
    """Whether each of ``drawn`` [N, H, W, 3] is, in mean absolute error, nearest to the picture at its place [N] among
    all ``pictures`` [M, H, W, 3] of the same owner [M]: whether it has the right style. BOOL [N]."""
    hits = []
    for one, place in zip(drawn, places, strict=True):
        same = (owners == owners[place]).nonzero().flatten()
        errors = (pictures[same].float() - one.float()).abs().flatten(1).mean(1)
        hits.append(same[errors.argmin()] == place)
    return torch.stack(hits)


def diversity(pictures: Tensor, groups: Tensor) -> float:
    """Mean distance 1 - cosine between two pictures of one group (one prompt, other seeds). Unit features [N, D]."""
    distance = 1 - pictures @ pictures.T
    pairs = (groups[:, None] == groups[None]) & ~torch.eye(len(groups), dtype=torch.bool)
    return float(distance[pairs].mean())


def interval(values: Tensor, draws: int = 2000) -> tuple[float, float]:
    """The middle 95 % of the mean of [N] values under resampling (bootstrap, always the same draws)."""
    means = values.double()[resamplings(len(values), draws)].mean(1)
    return middle(means)


def frechet_interval(pictures: Tensor, reference: Normal, draws: int = 100) -> tuple[float, float, float]:
    """Fréchet distance of [S, N, D] (seeds, prompts), and its middle 95 % when prompts are resampled.

    Repeated pictures add distance, so the resampled distances are moved back by what they add on average.
    """
    value = frechet(pictures.flatten(0, 1), reference)
    chosen = resamplings(pictures.shape[1], draws)
    others = torch.tensor([frechet(pictures[:, index].flatten(0, 1), reference) for index in chosen])
    low, high = middle(others - others.mean() + value)
    return value, low, high


def resamplings(count: int, draws: int) -> Tensor:
    return torch.randint(count, (draws, count), generator=torch.Generator().manual_seed(0))


def middle(values: Tensor) -> tuple[float, float]:
    low, high = values.double().quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
