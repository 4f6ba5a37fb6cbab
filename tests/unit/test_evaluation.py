"""`vqd evaluate` on a made-up data set and the bundled model; and its tables, whose verdicts are known beforehand."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from service.errors import SetupError
from service.lab.evaluation.evaluate import (
    Judge,
    Painter,
    Sample,
    choose_prompts,
    evaluate,
    measure_codec,
    read_records,
    rising,
)
from service.lab.evaluation.features import emoji_of, features_of, load_inception
from service.lab.evaluation.measures import frechet
from service.lab.evaluation.plots import plot_tables
from service.lab.evaluation.questions import PLAIN, PURITY, Claim, Setting, all_settings, key, setting
from service.lab.evaluation.run import run_evaluation
from service.lab.evaluation.tables import BEGIN, END, Records, of_last_run, summary, verdict, write_tables
from service.models.card import REFERENCE

SAMPLE = Sample(per_group=2, seeds=2)
FAST = setting(steps=2, tokens_per_step=32)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder's ``data``: four emoji in two styles, one of each pair held out now and then."""
    folder = tmp_path_factory.mktemp("work") / "data"
    folder.mkdir()
    names = [f"{code:X} {style}" for style in ("google", "twitter") for code in range(0x1F600, 0x1F604)]
    captions = [f"thing {i}, noto style" for i in range(len(names))]
    index = np.arange(len(names), dtype=np.int32)[:, None, None] * np.ones((1, 6, 2), np.int32)
    pixels = np.random.default_rng(0).integers(0, 256, (len(names), 32, 32, 3), np.uint8)
    held_out = np.array([True, False, False, True, False, False, True, False])
    np.savez(folder / "pictures.npz", pixels=pixels, names=names, captions=index, held_out=held_out)
    (folder / "captions.json").write_text(json.dumps(captions))
    return folder


@pytest.fixture(scope="module")
def painter(data: Path) -> Painter:
    return Painter(REFERENCE, data.parent / "repository", data.parent / "null.safetensors")


def drawn(painter: Painter, chosen: Setting) -> bytes:
    """Eight pictures."""
    cases = [{"prompt": "something round", "seed": seed} for seed in range(8)]
    return painter.paint(chosen, cases, "").numpy().tobytes()


def test_every_kind_of_setting_draws_something_else(painter: Painter) -> None:
    kinds = [
        FAST,
        replace(FAST, null="zero-shot"),
        replace(FAST, scores="other"),
        replace(FAST, rising=True),
        setting(steps=2, tokens_per_step=32, purity_form="power"),
        setting(steps=2, tokens_per_step=32, final_resample=False),
        setting(steps=2, tokens_per_step=None, sampler="ancestral"),
        FAST,
    ]
    made = [drawn(painter, kind) for kind in kinds]
    assert made[-1] == made[0]
    assert len(set(made)) == len(kinds) - 1


def test_a_null_that_was_not_learned_yet_is_left_out(painter: Painter) -> None:
    assert [painter.can(replace(FAST, null=null)) for null in ("model", "zero-shot", "tuned")] == [True, True, False]


def test_rising_guidance_keeps_its_mean(painter: Painter) -> None:
    fields = {"prompt": "red apple", "seed": 1, "guidance_scale": 3.0, "guidance_schedule": "constant"}
    [row] = painter.begin([fields])
    raised = rising(row.plan).weights[:, 0]
    assert raised[0] == 1
    assert raised[-1] == 5
    assert raised.mean() == pytest.approx(3)


def test_few_prompts_are_the_first_of_many(data: Path) -> None:
    pictures = np.load(data / "pictures.npz")
    captions = json.loads((data / "captions.json").read_text())
    few, many = (choose_prompts(pictures, captions, count) for count in (1, 3))
    assert [few.captions[0], few.captions[1]] == [many.captions[0], many.captions[3]]
    owners = emoji_of(pictures["names"].tolist())
    for text, emoji in zip(many.captions, many.emoji.flatten(), strict=True):
        place = captions.index(text)
        assert owners[place] == emoji
        assert many.places.flatten()[many.captions.index(text)] == place
        assert bool(pictures["held_out"][place]) == (many.captions.index(text) < 3)


def test_the_codecs_record_has_the_prompts_own_pictures(painter: Painter, data: Path) -> None:
    """With as many real pictures as prompts, in place of drawn ones."""
    pictures = np.load(data / "pictures.npz")
    prompts = choose_prompts(pictures, json.loads((data / "captions.json").read_text()), 3)
    judge = Judge(pictures, None)
    record = measure_codec(painter, pictures, prompts, judge)
    own = torch.from_numpy(pictures["pixels"])[prompts.places.flatten()]
    for name, drawn in (("pictures", own), ("reconstructions", painter.reconstruct(own.numpy()))):
        expected = frechet(features_of(judge.network, drawn), judge.normal)
        assert record[f"frechet_{name}"][0] == pytest.approx(expected, rel=1e-3)


class Blank(Painter):
    """In the place of ``painter``: white sheets, and what was asked for."""

    def __init__(self, painter: Painter) -> None:
        self.__dict__ |= painter.__dict__
        self.asked: list[Setting] = []

    def paint(self, setting: Setting, cases: Sequence[Any], name: str) -> Tensor:
        self.asked.append(setting)
        return torch.zeros(len(cases), 32, 32, 3).byte()


def test_an_interrupted_run_goes_on(painter: Painter, data: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "quality.jsonl", [FAST, replace(FAST, rising=True)]
    first: Iterator[Any] = evaluate(painter, data, out, settings, SAMPLE)
    assert "codec" in next(first)
    assert next(first)["setting"] == asdict(FAST)
    first.close()
    blank = Blank(painter)
    records = list(evaluate(blank, data, out, settings, SAMPLE))
    assert blank.asked == settings[1:]
    assert records == read_records(out)
    assert [len(records[1]["ranks"][group]) for group in ("held out", "seen")] == [2, 2]
    assert "top-5 held out" in summary(records[1])
    assert [path.name for path in plot_tables(Records(records), tmp_path)] == ["quality-s.png", "quality-z.png"]


def test_the_command_writes_the_page(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.lab.evaluation.run.QUICK", (PLAIN,))
    monkeypatch.setattr("service.lab.evaluation.run.QUICK_SAMPLE", SAMPLE)
    out = tmp_path / "new" / "quality.jsonl"
    lines = list(run_evaluation(REFERENCE, data.parent, out, quick=True, tables=False, inception=None))
    assert lines[2] == str(out.with_suffix(".md"))
    assert "| r = 0, s = 1 |" in out.with_suffix(".md").read_text()
    again = list(run_evaluation(REFERENCE, tmp_path, out, quick=False, tables=True, inception=None))
    assert again == lines[2:], "--tables needs neither data nor model"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="holds no pictures: run `vqd train data"):
        list(run_evaluation(REFERENCE, tmp_path, tmp_path / "q.jsonl", quick=True, tables=False, inception=None))
    with pytest.raises(SetupError, match=r"q\.jsonl holds no records"):
        list(run_evaluation(REFERENCE, tmp_path, tmp_path / "q.jsonl", quick=True, tables=True, inception=None))


def made_up(chosen: Setting, found: float, distance: float, **about: object) -> dict[str, Any]:
    """A record in which a share of 40 prompts per group is found at once, the rest never."""
    ranks = [[0 if i < 40 * found else 9 for i in range(40)]] * 2
    return {
        "model": "0" * 64,
        "per_group": 40,
        "seeds": 2,
        "setting": asdict(chosen),
        "ranks": {"held out": ranks, "seen": ranks},
        "styles": {"held out": [[1] * 30 + [0] * 10] * 2, "seen": [[1] * 40] * 2},
        "frechet": [distance, distance - 0.01, distance + 0.01],
        "diversity": 0.2,
        **about,
    }


@pytest.mark.parametrize(
    ("found", "distance", "expected"),
    [
        (0.9, 0.10, r"top-1 \+40 \(\+(29|30) to \+(50|51)\) points: agrees; Fréchet 0.100 against 0.200: agrees"),
        (0.1, 0.30, r"top-1 -40 \(-5[01] to -(29|30)\) points: disagrees; Fréchet 0.300 against 0.200: disagrees"),
        (0.5, 0.19, r"top-1 \+0 \(\+0 to \+0\) points: no difference .*; Fréchet 0.190 against 0.200: no difference"),
    ],
)
def test_verdicts(found: float, distance: float, expected: str) -> None:
    records = Records([made_up(setting(), found, distance), made_up(PLAIN, 0.5, 0.2)])
    assert re.search(expected, verdict(records, Claim("it helps", setting(), PLAIN)))


def test_the_tables_go_to_their_place(tmp_path: Path) -> None:
    page = tmp_path / "quality.md"
    page.write_text(f"# Before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    group = {"error": [0.04, 0.03, 0.05], "top-1": 0.98, "top-5": 0.99}
    codec = {"model": "1" * 64, "per_group": 40, "seeds": 2, "codec": True, "held out": group, "seen": group}
    codec |= {"frechet_pictures": [0.2, 0.1, 0.3], "frechet_reconstructions": [0.25, 0.15, 0.35]}
    old = made_up(setting(), 0.1, 0.5, per_group=3)
    records = of_last_run([old, codec, made_up(setting(), 0.5, 0.25, model="1" * 64)])
    assert len(records) == 2
    write_tables(records, page)
    text = page.read_text()
    assert text.startswith("# Before\n")
    assert text.endswith(f"{END}\n\nafter\n")
    assert "old" not in text
    assert "(default setting, percent): 75 (" in text
    assert "of held out and 100 (100-100) of seen ones." in text
    assert "own pictures: 0.200 (0.100-0.300), of their reconstructions: 0.250 (0.150-0.350)." in text
    assert "| r = 1, linear, normalised | 50 (35-65) | 50 (35-65) |" in text
    write_tables(records, page)
    assert page.read_text() == text
    page.write_text("no place")
    with pytest.raises(SetupError, match="has no place for the tables"):
        write_tables(records, page)


def test_no_setting_is_measured_twice_and_every_claim_is_in_its_reach() -> None:
    keys = [key(chosen) for chosen in all_settings()]
    assert len(keys) == len(set(keys))
    assert key(setting()) in keys
    assert {key(chosen) for claim in PURITY.claims for chosen in (claim.better, claim.worse)} <= set(keys)


class Means(torch.nn.Module):
    def forward(self, pixels: Tensor, return_features: bool = False) -> Tensor:
        return pixels.float().mean((2, 3)) if return_features else torch.zeros(len(pixels), 1)


def test_inception_gets_bytes_and_is_asked_for_features(tmp_path: Path) -> None:
    torch.jit.script(Means()).save(str(tmp_path / "inception.pt"))
    network = load_inception(tmp_path / "inception.pt")
    pixels = torch.tensor([0, 128, 255]).byte()[None, :, None, None].expand(1, 3, 4, 4)
    assert network(pixels.float() / 127.5 - 1).tolist() == [[0.0, 128.0, 255.0]]
    (tmp_path / "wrong.pt").write_bytes(b"weights of something else")
    with pytest.raises(SetupError, match=r"--inception .*wrong\.pt: not a TorchScript file"):
        load_inception(tmp_path / "wrong.pt")
