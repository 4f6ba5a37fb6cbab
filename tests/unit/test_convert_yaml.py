"""The yaml beside an official checkpoint: read as data, held against the file, and asked what nothing else tells."""

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tqdm import tqdm
from unit.official_checkpoint import CLASSES, TEXT, Spec, make_checkpoint, make_mapping, write_vocabulary

from service.errors import SetupError
from service.models.convert.convert import convert
from service.models.convert.layout import Given
from service.models.convert.understanding import Options
from service.models.folder import load_model

PLAIN = replace(TEXT, vocabulary=517)


def recipe(spec: Spec, **changes: Any) -> dict[str, Any]:
    """As the official files are written; ``changes``: a field's name to its value, wherever it stands."""
    grid = [spec.grid, spec.grid]
    network = {
        "n_layer": spec.layers,
        "n_embd": spec.width,
        "n_head": 2,
        "content_seq_len": spec.grid**2,
        "content_spatial_size": grid,
        "block_activate": "GELU2",
        "mlp_hidden_times": 4,
        "timestep_type": "adalayernorm",
    }
    network |= {"mlp_type": "conv_mlp"} if spec.convolution else {}
    network |= {"class_number": 1000} if spec.kind == "class" else {"condition_dim": spec.text_width}
    content = {"num_embed": spec.codes, "spatial_size": (spec.table, spec.table), "pos_emb_type": "embedding"}
    quantize = spec.codes if spec.codes != spec.full else 0
    codec = {"token_shape": grid, "quantize_number": quantize, "mapping_path": "None"}
    words = {"context_length": spec.positions, "pad_value": 0}
    text = {"num_embed": spec.vocabulary, "clip_name": "ViT-B/32", "normalize": True}
    steps = {"diffusion_step": spec.timesteps, "alpha_init_type": "alpha1", "learnable_cf": not spec.null}
    for fields in (network, content, codec, words, text, steps):
        fields |= {name: value for name, value in changes.items() if name in fields}
    params = {
        "diffusion_config": {
            "params": steps
            | {
                "transformer_config": {"params": network},
                "content_emb_config": {"params": content},
                "condition_emb_config": {"params": text if spec.kind == "text" else {"num_embed": 1000}},
            }
        },
        "content_codec_config": {"params": codec},
        "condition_codec_config": {"params": words},
    }
    return {"model": {"params": params}}


def converted(spec: Spec, folder: Path, text: str, **sizes: Any) -> Path:
    """Converted with the yaml and nothing but these options."""
    torch.save(make_checkpoint(spec), folder / "tiny.pth")
    torch.save(make_mapping(spec), folder / "mapping.pt")
    (folder / "tiny.yaml").write_text(text)
    mapping = folder / "mapping.pt" if spec.codes != spec.full else None
    vocabulary = write_vocabulary(folder / "vocabulary") if spec.kind == "text" else None
    options = Options(mapping, vocabulary, folder / "tiny.yaml", given=Given(**sizes))
    list(convert(folder / "tiny.pth", folder / "model", options, tqdm(file=io.StringIO())))
    return folder / "model"


def written(spec: Spec, **changes: Any) -> str:
    return yaml.dump(recipe(spec, **changes))


@pytest.mark.parametrize("rows", [1000, 1001])
def test_it_says_what_the_file_does_not_and_its_class_number_may_be_one_too_small(rows: int, tmp_path: Path) -> None:
    spec = replace(CLASSES, rows=rows)
    text = written(spec)
    assert "!!python/tuple" in text
    assert "mapping_path: None" in text
    model = load_model(converted(spec, tmp_path, text))
    assert model.info.tokens == spec.grid**2
    assert len(model.transformer.state_dict()["transformer_blocks.0.norm3.emb.weight"]) == 1001  # type: ignore[attr-defined]


@pytest.mark.parametrize("rows", [10, 11])
def test_of_other_classes_it_says_whether_there_is_a_null(rows: int, tmp_path: Path) -> None:
    spec = replace(CLASSES, rows=rows)
    model = load_model(converted(spec, tmp_path, written(spec, class_number=10)))
    assert len(model.transformer.state_dict()["transformer_blocks.0.norm3.emb.weight"]) == 11  # type: ignore[attr-defined]


def test_states_are_normalised_unless_it_says_otherwise(tmp_path: Path) -> None:
    for normalize in (True, False):
        folder = tmp_path / str(normalize)
        folder.mkdir()
        model = load_model(converted(PLAIN, folder, written(PLAIN, normalize=normalize)))
        assert model.text is not None
        assert model.text.normalize == normalize


def test_an_option_that_it_contradicts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"n_head is 2, and by the checkpoint and the options it is 4: .*an option is"):
        converted(PLAIN, tmp_path, written(PLAIN), heads=4)


DISAGREEMENTS = {
    "diffusion_step": 50,
    "alpha_init_type": "cos",
    "n_layer": 3,
    "n_embd": 32,
    "content_seq_len": 1024,
    "content_spatial_size": [32, 32],
    "block_activate": "GELU",
    "mlp_hidden_times": 3,
    "timestep_type": "adalayernorm_abs",
    "condition_dim": 512,
    "num_embed": 4096,
    "spatial_size": (32, 32),
    "pos_emb_type": "sinusoid",
    "token_shape": [4, 8],
    "quantize_number": 2887,
    "context_length": 77,
    "pad_value": 1,
}


@pytest.mark.parametrize(("name", "value"), DISAGREEMENTS.items())
def test_a_yaml_of_another_model_is_refused(name: str, value: Any, tmp_path: Path) -> None:
    found = list(value) if isinstance(value, tuple) else value
    says = rf"tiny\.yaml: \S*\.{name} is {re.escape(str(found))}, and by the checkpoint .* it is another model's yaml"
    with pytest.raises(SetupError, match=says):
        converted(PLAIN, tmp_path, written(PLAIN, **{name: value}))
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("number", [999, 1002])
def test_other_classes_are_refused(number: int, tmp_path: Path) -> None:
    spec = replace(CLASSES, rows=1001)
    with pytest.raises(SetupError, match=rf"class_number is {number}, .* it is 1000 or 1001"):
        converted(spec, tmp_path, written(spec, class_number=number))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model: [", "is no yaml of plain data"),
        ("a: 1", "has no model.params.diffusion_config"),
        ("model: {params: {}}", "has no model.params.diffusion_config"),
        ("", "has no model.params.diffusion_config"),
        (
            "model: !!python/object/apply:os.mkdir [ran]",
            r"is no yaml of plain data: .*python/object.*nothing of it",
        ),
    ],
)
def test_what_is_no_such_yaml_is_refused(text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SetupError, match=says):
        converted(PLAIN, tmp_path, text)
    assert not (tmp_path / "ran").exists()


def test_a_yaml_that_is_not_there_is_refused(tmp_path: Path) -> None:
    torch.save(make_checkpoint(PLAIN), tmp_path / "tiny.pth")
    options = Options(config=tmp_path / "none.yaml")
    with pytest.raises(SetupError, match=r"none\.yaml: there is no such yaml; --config can be left out"):
        list(convert(tmp_path / "tiny.pth", tmp_path / "model", options, tqdm(file=io.StringIO())))


def test_the_word_none_is_nothing(tmp_path: Path) -> None:
    """So the official files say what they leave out; it contradicts nothing."""
    text = written(PLAIN, quantize_number="None", n_head=2)
    assert "quantize_number: None" in text
    assert converted(PLAIN, tmp_path, text).is_dir()
