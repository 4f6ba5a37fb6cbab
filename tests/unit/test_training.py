"""Training on a made-up data set: the same weights every time, also across an interruption; and the data's rules."""

import hashlib
import io
import json
import math
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from service.diffusion.schedule import Schedule
from service.errors import SetupError
from service.lab.training import codec, diffusion
from service.lab.training import data as training_data
from service.lab.training.assemble import assemble
from service.lab.training.codec import CodecRecipe, train_codec
from service.lab.training.data import (
    COLOURS,
    FORMS,
    PACKAGES,
    STYLES,
    TEXT_POSITIONS,
    caption_forms,
    colour_of,
    fetch_packages,
    held_out_style,
    held_out_wordings,
    prepare_data,
)
from service.lab.training.diffusion import DiffusionRecipe, full_loss, train_diffusion
from service.lab.training.loop import SavedRun, training_steps
from service.models.folder import load_model

PICTURES, CAPTIONS, STEPS = 6, 10, 4
HELD_OUT = 2
CODEC_RECIPE = CodecRecipe(steps=STEPS, batch=2, revive_every=3)
DIFFUSION_RECIPE = DiffusionRecipe(steps=STEPS, batch=2)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as ``prepare_data`` leaves it."""
    folder = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(5)
    names = [f"{i:04X} {('google', 'twitter')[i % 2]}" for i in range(PICTURES)]
    np.savez(
        folder / "pictures.npz",
        pixels=draw.integers(0, 256, (PICTURES, 32, 32, 3), np.uint8),
        names=np.array(names),
        categories=np.array(["Symbols", "Objects"] * (PICTURES // 2)),
        captions=draw.integers(0, CAPTIONS, (PICTURES, FORMS, 2), np.int32),
        held_out=np.arange(PICTURES) == HELD_OUT,
        held_out_wordings=np.broadcast_to(np.arange(FORMS) == FORMS - 1, (PICTURES, FORMS)),
    )
    (folder / "captions.json").write_text(json.dumps([f"caption {i}" for i in range(CAPTIONS)]))
    np.save(folder / "states.npy", draw.standard_normal((CAPTIONS, TEXT_POSITIONS, 384)).astype(np.float16))
    return folder


@pytest.fixture(scope="module")
def trained(made_up: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder after both trainings, uninterrupted."""
    work = tmp_path_factory.mktemp("work")
    torch.set_num_threads(1)
    train_codec(made_up, work, CODEC_RECIPE)
    train_diffusion(made_up, work, DIFFUSION_RECIPE)
    return work


def interrupted_at(step: int) -> Callable[..., Any]:
    """``training_steps`` that saves after every step, and is interrupted like by Ctrl-C before ``step``."""

    def steps(name: str, count: int, checkpoint: SavedRun) -> Iterator[Any]:
        for number, log in training_steps(name, count, checkpoint, save_every_s=0):
            if number == step:
                raise KeyboardInterrupt
            yield number, log

    return steps


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Train with ``module``'s ``train``, as far as the third step."""

    def run(module: ModuleType, train: Callable[..., Path], *arguments: Any) -> None:
        monkeypatch.setattr(module, "training_steps", interrupted_at(2))
        with pytest.raises(KeyboardInterrupt):
            train(*arguments)
        monkeypatch.undo()

    return run


def test_the_codecs_weights_follow_from_the_seed(made_up: Path, trained: Path, tmp_path: Path) -> None:
    again = train_codec(made_up, tmp_path, CODEC_RECIPE).read_bytes()
    assert again == (trained / "vqvae.safetensors").read_bytes()
    other = train_codec(made_up, tmp_path / "other", replace(CODEC_RECIPE, seed=1)).read_bytes()
    assert other != again
    curve = [json.loads(line) for line in (tmp_path / "codec.jsonl").read_text().splitlines()]
    assert [point["step"] for point in curve] == list(range(STEPS))


def test_an_interrupted_codec_gets_the_same_weights(
    made_up: Path, trained: Path, tmp_path: Path, interrupted: Callable[..., None]
) -> None:
    """The interruption falls between two revivals of dead codes: what was used before it still counts."""
    interrupted(codec, train_codec, made_up, tmp_path, CODEC_RECIPE)
    assert not (tmp_path / "vqvae.safetensors").exists()
    assert train_codec(made_up, tmp_path, CODEC_RECIPE).read_bytes() == (trained / "vqvae.safetensors").read_bytes()


def test_a_checkpoint_of_another_version_is_named(made_up: Path, trained: Path, tmp_path: Path) -> None:
    state = torch.load(trained / "codec.checkpoint.pt", weights_only=True)
    del state["counts"]
    torch.save(state, tmp_path / "codec.checkpoint.pt")
    with pytest.raises(SetupError, match=r"codec\.checkpoint\.pt is of another version: it lacks counts; delete it"):
        train_codec(made_up, tmp_path, CODEC_RECIPE)


@pytest.fixture
def with_codec(trained: Path, tmp_path: Path) -> Path:
    """A work folder in which only the codec is trained."""
    shutil.copy(trained / "vqvae.safetensors", tmp_path)
    return tmp_path


def test_the_transformers_weights_follow_from_the_seed(made_up: Path, trained: Path, with_codec: Path) -> None:
    again = train_diffusion(made_up, with_codec, DIFFUSION_RECIPE).read_bytes()
    assert again == (trained / "transformer.safetensors").read_bytes()
    (with_codec / "diffusion.checkpoint.pt").unlink()
    assert train_diffusion(made_up, with_codec, replace(DIFFUSION_RECIPE, seed=1)).read_bytes() != again


def test_an_interrupted_transformer_gets_the_same_weights(
    made_up: Path, trained: Path, with_codec: Path, interrupted: Callable[..., None]
) -> None:
    interrupted(diffusion, train_diffusion, made_up, with_codec, DIFFUSION_RECIPE)
    assert not (with_codec / "transformer.safetensors").exists()
    resumed = train_diffusion(made_up, with_codec, DIFFUSION_RECIPE)
    assert resumed.read_bytes() == (trained / "transformer.safetensors").read_bytes()


def exact_divergence(log_p: Tensor, tokens: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
    """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) FP64 [B, L] by transition matrices of K + 1 states and Bayes."""
    codes = log_p.shape[-1]
    schedule = Schedule(diffusion.CONFIG.num_embeds_ada_norm, codes).double()
    values = []
    for row, time in enumerate(t.tolist()):
        q = schedule(torch.tensor([time]), torch.tensor([time - 1]))

        def matrix(alpha: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
            """[to, from]"""
            moves = torch.zeros(codes + 1, codes + 1, dtype=torch.float64)
            moves[:codes, :codes] = beta + alpha * torch.eye(codes, dtype=torch.float64)
            moves[codes, :codes] = gamma
            moves[codes, codes] = 1
            return moves

        last, before = matrix(q.alpha, q.beta, q.gamma), matrix(q.alpha_s, q.beta_s, q.gamma_s)
        for place in range(tokens.shape[1]):
            joint = last[noisy[row, place], :, None] * before  # [x_{t-1}, x_0]
            known = joint / joint.sum(0)
            true = known[:, tokens[row, place]]
            predicted = known[:, :codes] @ log_p[row, place].double().exp()
            values.append((torch.xlogy(true, true) - torch.xlogy(true, predicted)).sum())
    return torch.stack(values).view_as(tokens)


@pytest.mark.parametrize("time", [0, 1, 40, 99])
def test_the_full_loss_is_the_bound_and_the_auxiliary_loss(time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(time)
    tokens = torch.randint(256, (2, 5), generator=generator)
    log_p = torch.randn(2, 5, 256, generator=generator).log_softmax(-1)
    seen: dict[str, Tensor] = {}

    class Known(torch.nn.Module):
        null = torch.zeros(TEXT_POSITIONS, 384)

        def forward(self, noisy: Tensor, t: Tensor, states: Tensor) -> Tensor:
            seen.update(noisy=noisy, t=t)
            return log_p

    monkeypatch.setattr(torch, "randint", fixed_times(time))
    loss = full_loss(Known(), tokens, torch.zeros(2, TEXT_POSITIONS, 384), DiffusionRecipe(), generator)  # type: ignore[arg-type]
    assert seen["t"].tolist() == [time, time]
    bound = exact_divergence(log_p, tokens, seen["noisy"], seen["t"])
    auxiliary = -log_p.gather(-1, tokens[:, :, None]).mean()
    assert loss.item() == pytest.approx(100 * (bound.mean() + 5e-4 * auxiliary).item(), rel=1e-3)


def fixed_times(time: int) -> Callable[..., Tensor]:
    """``torch.randint`` that draws this timestep, and everything else as ever."""
    draw = torch.randint

    def drawn(high: int, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
        times = diffusion.CONFIG.num_embeds_ada_norm
        return torch.full(size, time) if high == times else draw(high, size, generator=generator)

    return drawn


def test_a_transformer_trained_with_the_full_loss(made_up: Path, trained: Path, with_codec: Path) -> None:
    other = train_diffusion(made_up, with_codec, replace(DIFFUSION_RECIPE, loss="full")).read_bytes()
    assert other != (trained / "transformer.safetensors").read_bytes()
    curve = [json.loads(line) for line in (with_codec / "diffusion.jsonl").read_text().splitlines()]
    assert all(math.isfinite(point["loss"]) and math.isfinite(point["norm"]) for point in curve)


def test_the_assembled_folder_is_a_model(trained: Path, tmp_path: Path) -> None:
    model = load_model(assemble(trained, tmp_path / "model"))
    assert (model.info.name, model.info.tokens, model.info.codes) == ("emoji-32", 64, 256)
    assert (model.info.image_width, model.info.text_positions) == (32, TEXT_POSITIONS)


def test_assembling_too_early_names_what_is_missing(with_codec: Path) -> None:
    with pytest.raises(SetupError, match=r"transformer\.safetensors is missing"):
        assemble(with_codec, with_codec / "model")
    assert not (with_codec / "model").exists()


def test_the_split() -> None:
    """Fixed for ever by these examples; no emoji is held out in both styles, and no plain name."""
    codes = [f"{0x1F300 + i:X}" for i in range(1500)]
    styles = [held_out_style(code) for code in codes]
    shares = [styles.count(style) / len(codes) for style in STYLES]
    assert shares == pytest.approx([0.1, 0.1], abs=0.02)
    wordings = np.stack([held_out_wordings(code) for code in codes])
    assert not wordings[:, 0].any()
    assert wordings.mean() == pytest.approx(0.2, abs=0.01)
    first = "1F301 1F304 1F30E 1F312 1F316 1F318 1F31A 1F31E 1F320 1F325 1F328 1F32D 1F331 1F333 1F334"
    assert [code for code in codes[:53] if held_out_style(code)] == first.split()


@pytest.mark.parametrize("colour", COLOURS)
def test_a_pictures_colour_is_named(colour: str) -> None:
    picture = np.full((8, 8, 3), 255, np.uint8)
    picture[2:5, 2:5] = COLOURS[colour]
    assert colour_of(picture) == colour


def test_what_is_held_out_does_not_change_the_weights(made_up: Path, trained: Path, tmp_path: Path) -> None:
    """Other pixels and captions in the held-out places: the same codec, tokens and batches."""
    pictures = dict(np.load(made_up / "pictures.npz"))
    pictures["pixels"][HELD_OUT] = 0
    pictures["captions"][HELD_OUT] = 0
    pictures["captions"][:, FORMS - 1] = 0
    shutil.copytree(made_up, tmp_path / "data")
    np.savez(tmp_path / "data/pictures.npz", **pictures)
    assert (
        train_codec(tmp_path / "data", tmp_path, CODEC_RECIPE).read_bytes()
        == (trained / "vqvae.safetensors").read_bytes()
    )
    assert (
        train_diffusion(tmp_path / "data", tmp_path, DIFFUSION_RECIPE).read_bytes()
        == (trained / "transformer.safetensors").read_bytes()
    )


@pytest.mark.parametrize("tags", [[], ["fruit"], ["fruit", "red", "round", "sweet", "tree", "food", "snack"]])
def test_caption_forms(tags: list[str]) -> None:
    forms = caption_forms("red apple", tags, "food & drink")
    assert forms == caption_forms("red apple", tags, "food & drink")
    assert len(forms) == FORMS - 1, "the last is the picture's colour"
    assert forms[:2] == ["red apple", "food & drink: red apple"]
    assert all(form.strip() for form in forms)
    assert set(", ".join(forms[2:]).replace(", ", " ").split()) <= {"red", "apple", *tags}


def archive_paths(folder: Path) -> list[Path]:
    return [folder / f"{spec.replace('@', '-')}.tgz" for spec in PACKAGES]


def test_a_wrong_checksum_names_the_file(tmp_path: Path) -> None:
    first = archive_paths(tmp_path)[0]
    first.write_bytes(b"not what was published")
    with pytest.raises(SetupError, match=rf"{first.name}: SHA-256 is [0-9a-f]{{64}}, expected"):
        fetch_packages(tmp_path)


def test_without_npm_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="npm is not on PATH"):
        fetch_packages(tmp_path / "packages")


def test_an_npm_that_fails_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(SetupError, match=r"npm pack emoji-datasource-google@16\.0\.0"):
        fetch_packages(tmp_path / "packages")


def pack(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (64, 64), colour).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Archives of the published form with one apple, one flag and one joined sequence per style."""
    folder = tmp_path / "packages"
    folder.mkdir()
    drawn = {"has_img_google": True, "has_img_twitter": True, "category": "Food & Drink", "sort_order": 1}
    apple = {**drawn, "unified": "1F34E", "image": "apple.png", "name": "RED APPLE"}
    flag = {**apple, "unified": "1F3F4", "category": "Flags"}
    joined = {**apple, "unified": "1F34E-200D-1F34E"}
    described = {"hexcode": "1F34E", "label": "red apple", "tags": ["fruit", "red"], "group": 4}
    messages = {"groups": [{"order": 4, "message": "food & drink"}]}
    google, twitter, emojibase = archive_paths(folder)
    for path, style, colour in ((google, "google", "#f00f"), (twitter, "twitter", "#0000")):
        entries = json.dumps([flag, apple, joined]).encode()
        pack(path, {"emoji.json": entries, f"img/{style}/64/apple.png": png(colour)})
    pack(
        emojibase,
        {"en/messages.json": json.dumps(messages).encode(), "en/data.json": json.dumps([described]).encode()},
    )
    sums = {
        spec: hashlib.sha256(p.read_bytes()).hexdigest()
        for spec, p in zip(PACKAGES, archive_paths(folder), strict=True)
    }
    monkeypatch.setattr(training_data, "PACKAGES", sums)
    return folder


def test_prepared_data(packages: Path, tmp_path: Path) -> None:
    """One picture per style, transparent parts white; every caption has its text states."""
    out = prepare_data(tmp_path / "data", packages)
    pictures = np.load(out / "pictures.npz")
    assert pictures["names"].tolist() == ["1F34E google", "1F34E twitter"]
    assert pictures["pixels"].shape == (2, 32, 32, 3)
    assert (pictures["pixels"][0] == (255, 0, 0)).all()
    assert (pictures["pixels"][1] == 255).all()
    captions = json.loads((out / "captions.json").read_text())
    forms = caption_forms("red apple", ["fruit", "red"], "food & drink")
    worded = [[[captions[i] for i in pair] for pair in picture] for picture in pictures["captions"]]
    assert [[pair[0] for pair in picture[:-1]] for picture in worded] == [forms, forms]
    assert [picture[-1][0] for picture in worded] == ["red apple", "white red apple"]
    styled = [[pair[1] for pair in picture[:3]] for picture in worded]
    assert styled[0] == [f"{forms[0]}, noto style", f"{forms[1]} in Noto style", f"Noto {forms[2]}"]
    assert styled[1] == [f"{forms[0]}, twemoji style", f"{forms[1]} in Twemoji style", f"twemoji {forms[2]}"]
    assert pictures["held_out"].shape == (2,)
    assert pictures["held_out_wordings"].shape == (2, FORMS)
    states = np.load(out / "states.npy")
    assert states.shape == (len(captions), TEXT_POSITIONS, 384)
    assert states.dtype == np.float16
    assert np.isfinite(states).all()
