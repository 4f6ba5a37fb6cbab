"""Quality of a model at a list of settings: every setting draws the same prompts with the same seeds.

One JSON line per setting, written when it is done; a run that was interrupted goes on behind the last one.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from service.diffusion.evaluation import Sampling
from service.diffusion.guidance_schedule import weights_of
from service.diffusion.plan import Plan
from service.diffusion.samplers import make_plan
from service.diffusion.served import TextStep
from service.export.build import ensure_exported
from service.export.modules import script
from service.export.precision import Precision
from service.lab.bench.bare import Bare, Wanted
from service.lab.bench.cases import Fields
from service.lab.evaluation.features import FEATURES, emoji_of, features_of, load_features, load_inception
from service.lab.evaluation.measures import GROUPS, Normal, diversity, frechet_interval, interval, own_is_nearest, ranks
from service.lab.evaluation.questions import Setting
from service.lab.evaluation.tables import Record, Records
from service.messages import Parameters
from service.models.folder import load_model
from service.models.reading import Reading
from service.models.vqvae import VQVAE

BATCH = 16


@dataclass(frozen=True)
class Sample:
    """How many prompts of each group, each with how many seeds."""

    per_group: int = 96
    seeds: int = 2


@dataclass(frozen=True)
class PromptChoice:
    """Captions of held-out pictures, and after them of as many seen ones."""

    captions: list[str]
    emoji: Tensor
    """Which one is right, INT64 [2, N]."""
    places: Tensor
    """Of the prompts' own pictures in the data, INT64 [2, N]."""


def choose_prompts(pictures: Any, captions: Sequence[str], per_group: int) -> PromptChoice:
    """Each picture's plain name with its style named. A smaller choice is the beginning of a larger one."""
    emoji, held_out = emoji_of(pictures["names"].tolist()), torch.from_numpy(pictures["held_out"])
    generator = torch.Generator().manual_seed(0)
    chosen = []
    for group in (held_out, ~held_out):
        places = group.nonzero().flatten()
        chosen.append(places[torch.randperm(len(places), generator=generator)[:per_group]])
    index = torch.stack(chosen)
    texts = [captions[int(pictures["captions"][i, 0, 1])] for i in index.flatten()]
    return PromptChoice(texts, emoji[index], index)


class OtherScores(Sampling):
    """Eq. 11 with the scores that the served step does not use: see ``Setting.scores``."""

    def sharpness(self, purity: Tensor, r: Tensor, form: Tensor) -> Tensor:
        normalised = purity / purity.max(-1, keepdim=True).values
        inverse = (normalised ** -r[:, None]).clamp(max=1e30)
        return torch.where((form == self.power_form)[:, None], inverse, 1 + r[:, None] * purity)


def rising(plan: Plan) -> Plan:
    """s(t) linear from 1 to 2s - 1."""
    ramp = np.linspace(0, 2, len(plan), dtype=np.float32)
    return replace(plan, weights=weights_of(1 + (plan.weights[:, 0] - 1) * ramp))


class Painter(Bare):
    """The exported modules of a model folder, and what no request can ask for."""

    def __init__(self, folder: Path, repository: Path, tuned_null: Path, dtype: str = Precision.AUTO) -> None:
        ensure_exported(folder, repository, dtype)
        super().__init__(repository)
        empty = self.encode([self.prompts.encode("prompt", "")])[0]
        self.nulls = {"model": self.null, "zero-shot": empty}
        if tuned_null.exists():
            self.nulls["tuned"] = load_file(tuned_null)["embeddings"].half().numpy()
        model = load_model(folder, Reading(Precision(self.info.dtype).torch))
        self.vqvae: VQVAE = model.vqvae
        model.transformer.prepare()
        sizes = model.info.codes, model.info.timesteps
        other = TextStep(model.transformer, *sizes)
        other.sampling = OtherScores(*sizes)
        self.steps = {"own": self.modules["diffusion_step"], "other": script(other)}

    def can(self, setting: Setting) -> bool:
        return setting.null in self.nulls

    def passes(self, setting: Setting) -> int:
        """Of the network, for one picture."""
        plan = make_plan(self.parameters(setting, 0), self.info.tokens, self.info.timesteps)
        return (rising(plan) if setting.rising else plan).passes

    def paint(self, setting: Setting, cases: Sequence[Fields], name: str) -> Tensor:
        """UINT8 [N, H, W, 3], in the order of ``cases``, which are prompts and seeds."""
        pictures = []
        for start in tqdm(range(0, len(cases), BATCH), desc=name, unit="batch", leave=False):
            wanted = [
                Wanted(fields["prompt"], None, self.parameters(setting, fields["seed"]))
                for fields in cases[start : start + BATCH]
            ]
            rows = self.rows(wanted, self.nulls[setting.null])
            if setting.rising:
                for row in rows:
                    row.plan = rising(row.plan)
            while left := [row for row in rows if row.remaining]:  # plans of md4 differ in length
                self.advance(left, min(row.remaining for row in left), self.steps[setting.scores])
            pictures.append(torch.from_numpy(np.array(self.decode(rows))))
        return torch.cat(pictures)

    def parameters(self, setting: Setting, seed: int) -> Parameters:
        """What the setting says, some of which no request can ask for."""
        usual = {**self.info.defaults.model_dump(), "tokens_per_step": None, "guidance_schedule": "constant"}
        return Parameters.model_validate({**usual, **setting.fields, "seed": seed, "n": 1})

    @torch.inference_mode()
    def reconstruct(self, pixels: NDArray[np.uint8]) -> Tensor:
        """UINT8 [N, H, W, 3] through the codec and back."""
        parts = torch.from_numpy(pixels).permute(0, 3, 1, 2).split(BATCH)
        tokens = torch.cat([self.vqvae.encode(part.float() / 127.5 - 1) for part in parts]).int().numpy()
        drawn = [self.call("image_decoder", tokens=tokens[i : i + BATCH]) for i in range(0, len(tokens), BATCH)]
        return torch.cat(drawn)


class Judge:
    """The data's pictures as features: what distances are from, and what is searched."""

    def __init__(self, pictures: Any, inception: Path | None) -> None:
        pixels = self.pixels = torch.from_numpy(pictures["pixels"])
        self.emoji = emoji_of(pictures["names"].tolist())
        self.network = load_features(FEATURES)
        self.gallery = features_of(self.network, pixels)
        self.normal = Normal.of(self.gallery)
        self.inception = load_inception(inception) if inception else None
        self.inception_normal = Normal.of(features_of(self.inception, pixels)) if self.inception else None

    def ranks(self, features: Tensor, emoji: Tensor) -> Tensor:
        return ranks(features, emoji, self.gallery, self.emoji)

    def measure(self, drawn: Tensor, prompts: PromptChoice, seeds: int) -> Record:
        """Of pictures that lie prompt by prompt for the first seed, then for the second, …"""
        features, groups = features_of(self.network, drawn), prompts.emoji.shape
        places = self.ranks(features, prompts.emoji.flatten().repeat(seeds)).view(seeds, *groups)
        own = prompts.places.flatten().repeat(seeds)
        styles = own_is_nearest(drawn, own, self.pixels, self.emoji).view(seeds, *groups)
        result: dict[str, Any] = {
            "ranks": {name: places[:, i].tolist() for i, name in enumerate(GROUPS)},
            "styles": {name: styles[:, i].int().tolist() for i, name in enumerate(GROUPS)},
            "frechet": frechet_interval(features.view(seeds, -1, features.shape[1]), self.normal),
            "diversity": diversity(features, torch.arange(len(prompts.captions)).repeat(seeds)),
        }
        if self.inception is not None and self.inception_normal is not None:
            others = features_of(self.inception, drawn)
            result["frechet_inception"] = frechet_interval(
                others.view(seeds, -1, others.shape[1]), self.inception_normal, draws=10
            )
        return result


def measure_codec(painter: Painter, pictures: Any, prompts: PromptChoice, judge: Judge) -> Record:
    """What no sampling can be better than.

    Error (mean absolute, scale 0 to 1) and retrieval of reconstructions, and the Fréchet distance of the prompts' own
    pictures, as drawn by people and as reconstructed.
    """
    drawn = painter.reconstruct(pictures["pixels"])
    error = (drawn.float() - torch.from_numpy(pictures["pixels"]).float()).abs().mean((1, 2, 3)) / 255
    features = features_of(judge.network, drawn)
    places = judge.ranks(features, judge.emoji)
    own = prompts.places.flatten()
    result: dict[str, Any] = {
        "codec": True,
        "frechet_pictures": frechet_interval(judge.gallery[own][None], judge.normal),
        "frechet_reconstructions": frechet_interval(features[own][None], judge.normal),
    }
    held_out = torch.from_numpy(pictures["held_out"])
    for name, group in zip(GROUPS, (held_out, ~held_out), strict=True):
        result[name] = {
            "error": [float(error[group].mean()), *interval(error[group])],
            "top-1": float((places[group] < 1).double().mean()),
            "top-5": float((places[group] < 5).double().mean()),
        }
    return result


def evaluate(
    painter: Painter,
    data: Path,
    out: Path,
    settings: Sequence[Setting],
    sample: Sample,
    inception: Path | None = None,
) -> Iterator[Record]:
    """Yield (and append to ``out``) the codec's record and one per setting; those of ``out`` are not repeated."""
    pictures = np.load(data / "pictures.npz")
    prompts = choose_prompts(pictures, json.loads((data / "captions.json").read_bytes()), sample.per_group)
    judge = Judge(pictures, inception)
    served = painter.info
    about = {"model": served.sha256, "dtype": served.dtype, "per_group": sample.per_group, "seeds": sample.seeds}
    done = [record for record in read_records(out) if about.items() <= record.items()]

    def keep(record: Record) -> Record:
        line = json.dumps({**about, **record})
        with out.open("a") as file:
            file.write(line + "\n")
        kept: Record = json.loads(line)
        return kept

    codecs = [record for record in done if "codec" in record]
    yield codecs[0] if codecs else keep(measure_codec(painter, pictures, prompts, judge))
    known = Records(done)
    cases: list[Fields] = [
        {"prompt": text, "seed": seed * len(prompts.captions) + i}
        for seed in range(sample.seeds)
        for i, text in enumerate(prompts.captions)
    ]
    for number, setting in enumerate(settings, start=1):
        if setting in known:
            yield known[setting]
            continue
        drawn = painter.paint(setting, cases, f"{number} of {len(settings)}")
        passes = painter.passes(setting)
        yield keep({"setting": asdict(setting), "passes": passes, **judge.measure(drawn, prompts, sample.seeds)})


def read_records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
