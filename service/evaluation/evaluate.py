"""Quality of a model at a list of settings: every setting draws the same prompts with the same seeds.

One JSON line per setting, written when it is done; a run that was interrupted goes on behind the last one.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from service.bench.bare import Bare
from service.bench.cases import Fields
from service.evaluation.features import emoji_of, features_of, load_features
from service.evaluation.measures import diversity, frechet, interval, ranks

BATCH = 16
GROUPS = ("held out", "seen")
TOP = (1, 5)


@dataclass(frozen=True)
class Prompts:
    """What is asked for: captions of pictures that training left out, and of as many that it saw."""

    captions: list[str]
    emoji: Tensor
    """INT64 [N]: which is right."""
    held_out: Tensor
    """BOOL [N]."""


@dataclass(frozen=True)
class Reference:
    """The data's pictures as features: what Fréchet distances are from, and what is searched."""

    features: Tensor
    emoji: Tensor


def choose_prompts(pictures: Any, captions: Sequence[str], per_group: int, generator: torch.Generator) -> Prompts:
    """Each picture's plain name with its style named: ``per_group`` held-out pictures and as many seen ones, drawn."""
    emoji, held_out = emoji_of(pictures["names"].tolist()), torch.from_numpy(pictures["held_out"])
    chosen = []
    for group in (held_out, ~held_out):
        places = group.nonzero().flatten()
        chosen.append(places[torch.randperm(len(places), generator=generator)[:per_group]])
    index = torch.cat(chosen)
    texts = [captions[int(pictures["captions"][i, 0, 1])] for i in index]
    return Prompts(texts, emoji[index], held_out[index])


def draw(bare: Bare, cases: Sequence[Fields], name: str) -> Tensor:
    """UINT8 [N, H, W, 3], in the order of ``cases``, whose plans have one length."""
    pictures = []
    for start in tqdm(range(0, len(cases), BATCH), desc=name, unit="batch", leave=False):
        jobs = bare.generate(cases[start : start + BATCH])
        pictures.append(torch.from_numpy(np.array(bare.decode(jobs))))
    return torch.cat(pictures)


def judge(features: Tensor, prompts: Prompts, seeds: int, reference: Reference) -> dict[str, Any]:
    """Measures of pictures that lie prompt by prompt for the first seed, then for the second, …"""
    generator = torch.Generator().manual_seed(0)
    place = ranks(features, prompts.emoji.repeat(seeds), reference.features, reference.emoji)
    held_out = prompts.held_out.repeat(seeds)
    result: dict[str, Any] = {"frechet": frechet(features, reference.features)}
    parts = [frechet(part, reference.features) for part in features.chunk(seeds)]
    result["frechet_by_seed"] = parts
    if seeds > 1:
        result["diversity"] = diversity(features, torch.arange(len(prompts.captions)).repeat(seeds))
    for name, group in zip(GROUPS, (held_out, ~held_out), strict=True):
        for top in TOP:
            hits = (place[group] < top).double()
            result[f"top-{top} {name}"] = [float(hits.mean()), *interval(hits, generator)]
    return result


def evaluate(
    repository: Path, data: Path, features: Path, out: Path, settings: dict[str, Fields], per_group: int, seeds: int
) -> Iterator[dict[str, Any]]:
    """Yield (and append to ``out``) a record per setting (request fields); those of ``out`` are not repeated."""
    pictures = np.load(data / "pictures.npz")
    captions = json.loads((data / "captions.json").read_text())
    bare, network = Bare(repository), load_features(features)
    prompts = choose_prompts(pictures, captions, per_group, torch.Generator().manual_seed(0))
    reference = Reference(
        features_of(network, torch.from_numpy(pictures["pixels"])), emoji_of(pictures["names"].tolist())
    )
    about = {"model": bare.info.sha256, "prompts": len(prompts.captions), "seeds": seeds}
    done = {record["setting"]: record for record in map(json.loads, lines_of(out)) if about.items() <= record.items()}
    for name, fields in settings.items():
        if name not in done:
            cases = [
                {"prompt": text, "seed": seed * len(prompts.captions) + i, **fields}
                for seed in range(seeds)
                for i, text in enumerate(prompts.captions)
            ]
            made = features_of(network, draw(bare, cases, name))
            done[name] = {"setting": name, "fields": fields, **about, **judge(made, prompts, seeds, reference)}
            with out.open("a") as file:
                file.write(json.dumps(done[name]) + "\n")
        yield done[name]


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
