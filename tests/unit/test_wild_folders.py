"""Model folders as they are found: each loads, or says in its own words what it is and what to do."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import steady_memory
from safetensors.torch import load_file, save_file
from torch import Tensor
from unit import model_folder

from service.errors import SetupError
from service.models.card import folder_fingerprint
from service.models.folder import OLD_ATTENTION, load_model
from service.models.reading import Reading
from service.models.weights import read_weights

saved, folder = model_folder.saved, model_folder.folder
ROOT = Path(__file__).parents[2]
STEM = "diffusion_pytorch_model"
PARTS = ("transformer", "vqvae", "learned_classifier_free_sampling_embeddings")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
Pieces = list[dict[str, Tensor]]


def take_weights(part: Path) -> dict[str, Tensor]:
    """The weights, whose file is gone then."""
    path = part / f"{STEM}.safetensors"
    state = {name: value.clone() for name, value in load_file(path).items()}
    path.unlink()
    return state


def halves(state: dict[str, Tensor]) -> Pieces:
    names = list(state)
    return [{name: state[name] for name in half} for half in (names[::2], names[1::2])]


def save_shards(part: Path, pieces: Pieces, kind: str, before: str = "", after: str = "", index: str = "") -> None:
    """Shards and their index. A variant's name stands ``before`` the number, and in older folders ``after`` it."""
    places = {}
    for i, piece in enumerate(pieces, 1):
        name = f"{STEM}{before}-{i:05}-of-{len(pieces):05}{after}.{kind}"
        (save_file if kind == "safetensors" else torch.save)(piece, part / name)
        places |= dict.fromkeys(piece, name)
    text = json.dumps({"metadata": {"total_size": 1}, "weight_map": places})
    (part / f"{STEM}.{kind}.index{index}.json").write_text(text)


FORMS: dict[str, Callable[[Path, dict[str, Tensor]], object]] = {
    "variant": lambda part, state: save_file(state, part / f"{STEM}.fp16.safetensors"),
    "pickle": lambda part, state: torch.save(state, part / f"{STEM}.bin"),
    "pickle of old": lambda part, state: torch.save(state, part / f"{STEM}.bin", _use_new_zipfile_serialization=False),
    "variant as a pickle": lambda part, state: torch.save(state, part / f"{STEM}.fp16.bin"),
    "shards": lambda part, state: save_shards(part, halves(state), "safetensors"),
    "shards as pickles": lambda part, state: save_shards(part, halves(state), "bin"),
    "shards of a variant": lambda part, state: save_shards(part, halves(state), "safetensors", ".fp16", "", ".fp16"),
    "shards of a variant of old": lambda part, state: save_shards(
        part, halves(state), "safetensors", "", ".fp16", ".fp16"
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_load_in_every_form(form: str, folder: Path) -> None:
    expected = load_model(folder).transformer.state_dict()
    notes: list[str] = []
    FORMS[form](folder / "transformer", take_weights(folder / "transformer"))
    loaded = load_model(folder, Reading(on_note=notes.append)).transformer.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(value.dtype == torch.float32 and torch.equal(value, expected[n]) for n, value in loaded.items())
    assert [("variant 'fp16'" in note, "transformer" in note) for note in notes] == [(True, True)] * ("variant" in form)


def test_whole_precision_comes_before_a_variant_and_fp16_before_others(folder: Path) -> None:
    part = folder / "transformer"
    state = take_weights(part)
    for i, name in enumerate(("non_ema", "bf16", "fp16", ""), 1):
        changed = {n: value * 0 + i for n, value in state.items()}
        save_file(changed, part / f"{STEM}{name and f'.{name}'}.safetensors")
    for expected, name in ((4, ""), (3, ".fp16"), (2, ".bf16"), (1, ".non_ema")):
        assert set(read_weights(part)["out.bias"].tolist()) == {expected}
        (part / f"{STEM}{name}.safetensors").unlink()


def test_the_picture_is_as_large_as_the_grid_says(folder: Path) -> None:
    """diffusers' converter leaves 32 as the codec's sample_size, whatever the codec is."""
    path = folder / "vqvae/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sample_size": 32}))
    model = load_model(folder)
    assert (model.info.image_width, model.info.image_height, model.vqvae.width) == (8, 8, 4)
    assert model.vqvae.decode(torch.zeros(1, 16, dtype=torch.long)).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("part", PARTS)
def test_a_pointer_in_place_of_weights_is_refused_in_every_part(part: str, folder: Path) -> None:
    (folder / part / f"{STEM}.safetensors").write_text(POINTER)
    with pytest.raises(SetupError, match=rf"{part}/{STEM}\.safetensors is a Git LFS pointer.*git lfs pull"):
        load_model(folder)


def test_pointers_in_place_of_forms_that_nobody_needs_do_no_harm(folder: Path) -> None:
    before = folder_fingerprint(folder)
    for name in (f"{STEM}.bin", f"{STEM}.fp16.safetensors", f"{STEM}.fp16.bin"):
        (folder / "transformer" / name).write_text(POINTER)
    load_model(folder)
    take_weights(folder / "transformer")
    torch.save({}, folder / "transformer" / f"{STEM}.bin")
    with pytest.raises(SetupError, match="do not fit the config"):  # it is this one that is read then
        load_model(folder)
    assert folder_fingerprint(folder) != before


def test_what_lies_beside_a_model_does_not_matter(folder: Path) -> None:
    before = folder_fingerprint(folder)
    for name in (
        "README.md",
        ".gitattributes",
        ".cache/huggingface/x.json",
        "transformer/.ipynb_checkpoints/config.json",
        f"transformer/._{STEM}.safetensors",
        f"transformer/{STEM}.msgpack",
        f"transformer/{STEM}.fp16.safetensors",
        f"vqvae/{STEM}.bin",
        f"vqvae/{STEM}-00001-of-00002.bin",
        "safety_checker/tf_model.h5",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"anything")
    load_model(folder)
    assert folder_fingerprint(folder) == before


def lose_shard(folder: Path) -> None:
    save_shards(folder / "transformer", halves(take_weights(folder / "transformer")), "safetensors")
    (folder / "transformer" / f"{STEM}-00002-of-00002.safetensors").unlink()


def lose_index(folder: Path) -> None:
    save_shards(folder / "transformer", halves(take_weights(folder / "transformer")), "safetensors")
    (folder / "transformer" / f"{STEM}.safetensors.index.json").unlink()


def lead_elsewhere(folder: Path) -> None:
    take_weights(folder / "transformer")
    index = {"weight_map": {"out.bias": f"../vqvae/{STEM}.safetensors"}}
    (folder / "transformer" / f"{STEM}.safetensors.index.json").write_text(json.dumps(index))


def spoil_index(folder: Path) -> None:
    take_weights(folder / "transformer")
    (folder / "transformer" / f"{STEM}.safetensors.index.json").write_text("[]")


def with_value(part: str, value: float) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        state = take_weights(folder / part)
        name = sorted(state)[0]
        state[name].view(-1)[-1] = value
        save_file(state, folder / part / f"{STEM}.safetensors")

    return apply


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "a shard is missing": (lose_shard, rf"index\.json names {STEM}-00002-of-00002\.safetensors, which is not in"),
    "the index is missing": (lose_index, rf"{STEM}-00001-of-00002\.safetensors is one of several.*download it"),
    "the index leads elsewhere": (lead_elsewhere, r"index\.json names \.\./vqvae.* not in its folder"),
    "the index is none": (spoil_index, r"index\.json is no index of weights"),
    **{f"NaN in {part}": (with_value(part, float("nan")), rf"{part}/.*: \S+ has values that are no") for part in PARTS},
    "infinite": (
        with_value("vqvae", float("-inf")),
        r"vqvae/.*: decoder\.conv_in\.bias has values that are no numbers",
    ),
}


@pytest.mark.parametrize(("damage", "says"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_broken_is_named(folder: Path, damage: Callable[[Path], None], says: str) -> None:
    damage(folder)
    with pytest.raises(SetupError, match=says):
        load_model(folder)


def test_numbers_that_half_precision_does_not_know_are_named(folder: Path) -> None:
    state = {name: value.float() for name, value in take_weights(folder / "transformer").items()}
    state["out.bias"][3] = 1e6
    save_file(state, folder / "transformer" / f"{STEM}.safetensors")
    assert load_model(folder, Reading(torch.bfloat16)).transformer.state_dict()["out.bias"][3] > 9e5
    with pytest.raises(SetupError, match=r"out\.bias has numbers that are too large for torch.float16: export as bf16"):
        load_model(folder, Reading(torch.float16))


def test_a_missing_null_is_said_and_the_empty_prompt_stands_in(folder: Path) -> None:
    notes: list[str] = []
    (folder / PARTS[2] / f"{STEM}.safetensors").unlink()
    load_model(folder, Reading(on_note=notes.append))
    shutil.rmtree(folder / PARTS[2])
    model = load_model(folder, Reading(on_note=notes.append))
    assert [re.sub(".*; ", "", note) for note in notes] == ["guidance is by the empty prompt"] * 2
    empty = model.tokenizer.encode("")
    ids, mask = (torch.tensor([v], dtype=torch.int32) for v in (empty.ids, empty.attention_mask))
    assert torch.equal(model.text(ids, mask), model.text(ids, 0 * mask))


def test_attention_of_old_is_read(folder: Path) -> None:
    expected = load_model(folder).vqvae.state_dict()
    names = {new: old for old, new in OLD_ATTENTION.items()}
    state = take_weights(folder / "vqvae")
    renamed = {re.sub(r"(?<=\.)to_(q|k|v|out\.0)(?=\.)", lambda m: names[m[0]], n): v for n, v in state.items()}
    assert renamed.keys() != state.keys()
    save_file(renamed, folder / "vqvae" / f"{STEM}.safetensors")
    assert all(torch.equal(value, expected[n]) for n, value in load_model(folder).vqvae.state_dict().items())


def test_a_checkpoint_is_to_be_converted_first(tmp_path: Path) -> None:
    for name in ("coco_learnable.pth", "x.ckpt"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(
            SetupError, match=rf"{name} is a checkpoint.* convert it first: vqd convert .*/{name} --to F"
        ):
            load_model(tmp_path / name)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(SetupError, match=r"model\.safetensors is a file: --model takes the folder"):
        load_model(tmp_path / "model.safetensors")


def test_a_hub_id_is_told_how_to_come_here() -> None:
    with pytest.raises(SetupError) as raised:
        load_model(Path("microsoft/vq-diffusion-ithq"))
    assert "hf download microsoft/vq-diffusion-ithq --local-dir vq-diffusion-ithq" in str(raised.value)
    for path in ("/no/folder", "./no/folder", "no-folder"):
        with pytest.raises(SetupError, match=r"there is no such model folder$"):
            load_model(Path("/" + path) if path.startswith(".") else Path(path))


def test_of_a_cache_of_downloads_the_snapshot_is_named(saved: Path, tmp_path: Path) -> None:
    snapshot = Path(shutil.copytree(saved, tmp_path / "models--a--b/snapshots/0123"))
    with pytest.raises(SetupError, match=rf"the model folder in it is {snapshot}$"):
        load_model(tmp_path / "models--a--b")
    load_model(snapshot)


MEASURE = """
import sys, torch
from pathlib import Path
from torch import nn
from service.models.weights import fill, read_weights

def taken(name):
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines[name].split()[0]) >> 10

folder, dtype = Path(sys.argv[1]), getattr(torch, sys.argv[2])
read_weights(folder / "small", dtype)
before, own = taken("VmHWM"), taken("RssAnon")
with torch.device("meta"):
    module = nn.Sequential(*(nn.Linear(1448, 1448, bias=False) for _ in range(20)))
fill(module, read_weights(folder, dtype), folder)
print(taken("VmHWM") - before, taken("RssAnon") - own)
"""


@pytest.mark.parametrize(("dtype", "whole_mb", "own_mb"), [("float32", 160, 0), ("bfloat16", 80, 80)])
def test_weights_are_in_memory_once(dtype: str, whole_mb: int, own_mb: int, tmp_path: Path) -> None:
    """160 MB in the file: what is not converted stays there, and a conversion never has both."""
    (tmp_path / "small").mkdir()
    weights = torch.randn(1448, 1448)
    save_file({f"{i}.weight": weights + i for i in range(20)}, tmp_path / "model.safetensors")
    save_file({"x": weights[:8].clone()}, tmp_path / "small/model.safetensors")
    command = [sys.executable, "-c", MEASURE, str(tmp_path), dtype]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=steady_memory())
    peak_mb, anonymous_mb = map(int, done.stdout.split())
    assert whole_mb <= peak_mb < whole_mb + 30
    assert own_mb <= anonymous_mb < own_mb + 30


@pytest.mark.parametrize(
    ("names", "says"),
    [("[", "cannot be read"), ('["a", 1]', "no JSON list"), ('["a"]', "names 1 classes, the model has 0")],
)
def test_names_of_classes_that_do_not_fit_are_refused(folder: Path, names: str, says: str) -> None:
    (folder / "labels.json").write_text(names)
    with pytest.raises(SetupError, match=rf"labels\.json.* {says}"):
        load_model(folder)
