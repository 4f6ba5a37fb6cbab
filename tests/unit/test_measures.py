"""Measures of quality against values that can be worked out by hand."""

import pytest
import torch
from torch.nn import functional as F

from service.lab.evaluation.measures import (
    Normal,
    diversity,
    frechet,
    frechet_interval,
    interval,
    own_is_nearest,
    ranks,
)


def test_frechet_of_known_normals() -> None:
    """Independent coordinates: Σ (μ - μ')² + (σ - σ')²."""
    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(200_000, 2, generator=generator)
    moved = plain * torch.tensor([2.0, 1.0]) + torch.tensor([0.0, 3.0])
    assert frechet(plain, Normal.of(moved)) == pytest.approx(1.0 + 9.0, rel=0.02)
    assert frechet(plain, Normal.of(plain)) == pytest.approx(0.0, abs=1e-9)


def test_ranks_count_the_emoji_that_are_nearer() -> None:
    gallery = F.normalize(torch.tensor([[1.0, 0.0], [0.9, 0.5], [0.0, 1.0], [-1.0, 0.0]]), dim=1)
    owners = torch.tensor([0, 0, 1, 2])
    pictures = F.normalize(torch.tensor([[0.8, 0.6], [0.8, 0.6], [0.8, 0.6]]), dim=1)
    assert ranks(pictures, torch.tensor([0, 1, 2]), gallery, owners).tolist() == [0, 1, 2]


def test_own_is_nearest_compares_with_the_same_emoji_only() -> None:
    pictures = torch.tensor([10, 90, 20, 50]).byte()[:, None, None, None].expand(4, 2, 2, 3)
    owners = torch.tensor([0, 0, 1, 1])
    drawn = torch.tensor([21, 60, 21, 36]).byte()[:, None, None, None].expand(4, 2, 2, 3)
    places = torch.tensor([0, 0, 3, 3])
    assert own_is_nearest(drawn, places, pictures, owners).tolist() == [True, False, False, True]


def test_diversity_compares_pictures_of_one_prompt_only() -> None:
    pictures = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert diversity(pictures, torch.tensor([0, 1, 0, 1])) == pytest.approx(0.5)


def test_the_interval_holds_the_mean_in_its_middle() -> None:
    values = torch.arange(2).repeat(200)
    low, high = interval(values)
    assert low < 0.5 < high
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / 400**0.5, rel=0.1)


def test_the_interval_of_a_distance_holds_it_and_narrows_with_prompts() -> None:
    generator = torch.Generator().manual_seed(0)
    reference = Normal.of(torch.randn(4000, 3, generator=generator))
    widths = []
    for prompts in (30, 480):
        pictures = torch.randn(2, prompts, 3, generator=generator) + 0.5
        value, low, high = frechet_interval(pictures, reference)
        assert value == frechet(pictures.flatten(0, 1), reference)
        assert low < value < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2
