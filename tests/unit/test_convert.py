"""``vqd convert`` on official layouts of every kind: the folder computes what the official formulas say."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import on_terminal, steady_memory, vqd
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm
from unit import official_forward as official
from unit.official_checkpoint import (
    CLASSES,
    NOTHING,
    TEXT,
    Spec,
    State,
    make_checkpoint,
    make_mapping,
    write_merges,
    write_vocabulary,
)

from service.errors import SetupError
from service.models.convert.check import check_logits
from service.models.convert.convert import convert
from service.models.convert.layout import Given
from service.models.convert.parts import write_part
from service.models.convert.understanding import Options, understand
from service.models.folder import LoadedModel, load_model

HEADS = 2
LAYOUTS = {
    "text, no learned null": TEXT,
    "text, learned null and a mapping": replace(TEXT, null=True, codes=7),
    "text, 60 timesteps, a Gumbel codec": replace(TEXT, timesteps=60, quantiser="gumbel", full=30, codes=9),
    "text, a codec without attention": replace(TEXT, attention=False, quantiser="ema"),
    "text, no moving average": replace(TEXT, ema=False, null=True),
    "text, a larger table of positions, a convolution": replace(TEXT, table=6, convolution=True),
    "classes, no null": CLASSES,
    "classes, 1,000 rows": replace(CLASSES, rows=1000),
    "classes, 1,001 rows": replace(CLASSES, rows=1001),
    "classes, linear": replace(CLASSES, convolution=False, levels=3),
    "nothing": NOTHING,
    "nothing, one level, one block, 7 timesteps": replace(NOTHING, levels=1, layers=1, timesteps=7, table=4),
}


def options_for(spec: Spec, folder: Path, **given: Any) -> Options:
    mapping = folder / "mapping.pt" if spec.full != spec.codes else None
    if mapping:
        torch.save(make_mapping(spec), mapping)
    vocabulary = write_vocabulary(folder / "vocabulary") if spec.kind == "text" else None
    return Options(mapping, vocabulary, given=Given(**{"heads": HEADS, "grid": spec.grid} | given))


def run_convert(spec: Spec, folder: Path, **given: Any) -> tuple[dict[str, Any], Path, list[str]]:
    """(the checkpoint, the folder that was written, what was told)."""
    checkpoint, path, to = make_checkpoint(spec), folder / "tiny.pth", folder / "model"
    torch.save(checkpoint, path)
    to.mkdir()  # an empty folder is as good as none
    told = list(convert(path, to, options_for(spec, folder, **given), tqdm(file=io.StringIO())))
    return checkpoint, to, told


def diffusion_of(checkpoint: dict[str, Any]) -> State:
    plain = {
        name.removeprefix("transformer."): v for name, v in checkpoint["model"].items() if "content_codec" not in name
    }
    return checkpoint.get("ema", plain)


def codec_of(checkpoint: dict[str, Any]) -> State:
    codec = {name: value for name, value in checkpoint["model"].items() if name.startswith("content_codec.")}
    return {name.removeprefix("content_codec."): value for name, value in codec.items()}


def our_logits(model: LoadedModel, tokens: Tensor, timestep: int, condition: Tensor) -> Tensor:
    memory = model.transformer.memory(condition[None])
    return model.transformer(tokens[None], torch.tensor([timestep]), memory)[0]


@pytest.fixture(scope="module", params=LAYOUTS.values(), ids=LAYOUTS.keys())
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    spec: Spec = request.param
    checkpoint, to, told = run_convert(spec, tmp_path_factory.mktemp("layout"))
    return spec, checkpoint, load_model(to), told


def test_logits_are_those_of_the_official_formulas(converted: tuple[Spec, dict[str, Any], LoadedModel, Any]) -> None:
    spec, checkpoint, model, _ = converted
    state, generator = diffusion_of(checkpoint), torch.Generator().manual_seed(5)
    for timestep in (0, spec.timesteps - 1):
        tokens = torch.randint(0, spec.codes + 1, (spec.grid**2,), generator=generator)
        theirs: Tensor
        for label in (0, spec.rows - 1):
            condition = torch.tensor(label)
            theirs = condition
            if spec.kind == "text":
                condition = theirs = torch.randn(spec.positions, spec.text_width, generator=generator)
            elif spec.kind == "class":
                theirs = official.class_vectors(state, spec, label)
            expected = official.logits(state, spec, HEADS, tokens, timestep, theirs)
            found = our_logits(model, tokens, timestep, condition)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_null_is_the_files_or_what_stands_in_for_it(
    converted: tuple[Spec, dict[str, Any], LoadedModel, list[str]],
) -> None:
    spec, checkpoint, model, told = converted
    state = diffusion_of(checkpoint)
    if spec.kind == "text":
        assert model.text is not None
        begin, end = spec.vocabulary - 2, spec.vocabulary - 1
        expected = official.text_states(state, [begin, end, *[0] * (spec.positions - 2)])
        expected = state["empty_text_embed"].float() if spec.null else expected
        torch.testing.assert_close(model.text.null, expected, rtol=1e-4, atol=1e-5)
        assert ("null: learned" in told[0]) == spec.null
    if spec.kind == "class":
        learned = spec.rows == 1001
        classes = spec.rows - learned
        tokens = torch.arange(spec.grid**2) % spec.codes
        null = official.class_vectors(state, spec, classes if learned else None)
        expected = official.logits(state, spec, HEADS, tokens, 3, null)
        torch.testing.assert_close(our_logits(model, tokens, 3, torch.tensor(classes)), expected, rtol=1e-4, atol=1e-4)
        assert (f"class {classes}, learned" if learned else f"the mean of the {classes} classes") in told[0]


def test_text_states_are_clips(converted: tuple[Spec, dict[str, Any], LoadedModel, Any]) -> None:
    spec, checkpoint, model, _ = converted
    if spec.kind != "text":
        assert model.text is None
        assert model.tokenizer is None
        return
    assert model.text is not None
    assert model.tokenizer is not None
    encoding = model.tokenizer.encode("cat red")
    assert encoding.ids[1] == 512 + 1, "the second merge makes one token of cat"
    found = model.text.encode(torch.tensor([encoding.ids]), torch.tensor([encoding.attention_mask]))[0]
    torch.testing.assert_close(
        found, official.text_states(diffusion_of(checkpoint), encoding.ids), rtol=1e-4, atol=1e-5
    )


def test_pictures_and_their_tokens_are_the_codecs(converted: tuple[Spec, dict[str, Any], LoadedModel, Any]) -> None:
    spec, checkpoint, model, _ = converted
    state, generator = codec_of(checkpoint), torch.Generator().manual_seed(6)
    book = next(v for name, v in state.items() if name.startswith("dec.quantize.emb"))
    mapping = make_mapping(spec) if spec.full != spec.codes else torch.arange(spec.full)
    first = torch.tensor([mapping.tolist().index(code) for code in range(spec.codes)])
    tokens = torch.randint(0, spec.codes, (spec.grid**2,), generator=generator)
    expected = official.decode(state, spec, book[first][tokens])
    torch.testing.assert_close(model.vqvae.decode(tokens[None])[0], expected, rtol=1e-4, atol=1e-4)
    side = spec.grid * 2 ** (spec.levels - 1)
    assert expected.shape == (3, side, side)
    assert (model.info.image_width, model.vqvae.width) == (side, spec.grid)
    for _ in range(4):
        pixels = torch.rand(3, side, side, generator=generator) * 2 - 1
        assert torch.equal(model.vqvae.encode(pixels[None])[0], mapping[official.encode(state, spec, pixels)])


def test_sizes_are_told(converted: tuple[Spec, dict[str, Any], LoadedModel, Any]) -> None:
    spec, _, model, told = converted
    info = model.info
    assert (info.name, info.tokens, info.codes, info.timesteps) == ("tiny", spec.grid**2, spec.codes, spec.timesteps)
    assert f"{spec.layers} blocks of {spec.width}, {HEADS} heads, {spec.codes} codes" in told[0]
    assert ("as trained" in told[0]) == (not spec.ema)
    assert "differ from the checkpoint's by" in told[1]


def test_of_an_average_without_text_encoder_the_model_has_it(tmp_path: Path) -> None:
    """As official inference loads one over the other."""
    checkpoint = make_checkpoint(TEXT)
    checkpoint["ema"] = {n: v for n, v in checkpoint["ema"].items() if not n.startswith("condition_emb.")}
    torch.save(checkpoint, tmp_path / "tiny.pth")
    options = options_for(TEXT, tmp_path)
    list(convert(tmp_path / "tiny.pth", tmp_path / "model", options, tqdm(file=io.StringIO())))
    text = load_model(tmp_path / "model").text
    assert text is not None
    trained = checkpoint["model"]["transformer.condition_emb.token_embedding.weight"]
    assert torch.equal(text.encoder.state_dict()["embeddings.token_embedding.weight"], trained)


def test_clips_own_vocabulary_file_makes_the_same_tokenizer(tmp_path: Path) -> None:
    _, to, _ = run_convert(TEXT, tmp_path)
    merges = write_merges(tmp_path / "bpe_simple_vocab_16e6.txt.gz")
    options = Options(tokenizer=merges, given=Given(heads=HEADS))
    list(convert(tmp_path / "tiny.pth", tmp_path / "other", options, tqdm(file=io.StringIO())))
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json"):
        assert (tmp_path / "other/tokenizer" / name).read_text() == (to / "tokenizer" / name).read_text()


def test_the_picture_size_gives_the_grid(tmp_path: Path) -> None:
    spec = replace(NOTHING, levels=3)
    _, to, _ = run_convert(spec, tmp_path, grid=None, size=16)
    assert load_model(to).info.tokens == spec.grid**2


def test_classes_can_be_told_from_a_learned_null(tmp_path: Path) -> None:
    _, to, told = run_convert(CLASSES, tmp_path, classes=CLASSES.rows - 1)
    assert f"class {CLASSES.rows - 1}, learned" in told[0]
    rows = load_model(to).transformer.state_dict()["transformer_blocks.0.norm3.emb.weight"]  # type: ignore[attr-defined]
    assert len(rows) == CLASSES.rows


def test_what_is_large_is_written_in_shards(tmp_path: Path) -> None:
    """With the index that diffusers and transformers read; no tensor is cut."""
    torch.save(make_checkpoint(NOTHING), tmp_path / "tiny.pth")
    part, told = understand(tmp_path / "tiny.pth", options_for(NOTHING, tmp_path)).parts[0], []
    write_part(part, tmp_path, tmp_path / "tiny.pth", told.append, most=10_000)
    index = json.loads((tmp_path / "transformer/diffusion_pytorch_model.safetensors.index.json").read_text())
    found: dict[str, str] = {}
    for path in sorted((tmp_path / "transformer").glob("*-of-*.safetensors")):
        state = load_file(path)
        assert sum(value.nbytes for value in state.values()) <= 10_000 or len(state) == 1
        found |= dict.fromkeys(state, path.name)
    assert len(set(found.values())) > 2
    assert found == index["weight_map"]
    assert found.keys() == part.sources.keys()
    assert sum(told) == part.size == index["metadata"]["total_size"]


def test_a_folder_that_is_not_the_model_is_noticed(tmp_path: Path) -> None:
    torch.save(make_checkpoint(NOTHING), tmp_path / "tiny.pth")
    found = understand(tmp_path / "tiny.pth", options_for(NOTHING, tmp_path))
    write_part(found.parts[0], tmp_path, tmp_path / "tiny.pth", lambda _: None)
    weights = tmp_path / "transformer/diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    name = "transformer_blocks.1.attn1.to_q.weight"
    save_file(state | {name: state[name] * 1.01}, weights)
    with pytest.raises(SetupError, match=r"logits differ from those of .*tiny\.pth"):
        check_logits(tmp_path, found.parts[0], tmp_path / "tiny.pth", found.network, lambda: None)


def test_a_folder_in_use_is_left_alone_and_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    checkpoint, to, _ = run_convert(NOTHING, tmp_path)
    modes = {path.stat().st_mode for path in to.rglob("*") if path.is_file()}
    assert len(modes) == 1, "who may read one file may read all"
    before = sorted(tmp_path.rglob("*"))
    options, bar = options_for(NOTHING, tmp_path), tqdm(file=io.StringIO())
    with pytest.raises(SetupError, match="is not an empty folder"):
        list(convert(tmp_path / "tiny.pth", to, options, bar))
    checkpoint["ema"]["transformer.to_logits.1.bias"][3] = float("nan")
    torch.save(checkpoint, tmp_path / "tiny.pth")
    with pytest.raises(SetupError, match=r"to_logits\.1\.bias has values that are not finite"):
        list(convert(tmp_path / "tiny.pth", tmp_path / "other", options, bar))
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_tells_what_it_found_and_shows_how_far_it_is(tmp_path: Path) -> None:
    torch.save(make_checkpoint(CLASSES), tmp_path / "tiny.pth")
    torch.save(make_mapping(CLASSES), tmp_path / "mapping.pt")
    names = [f"class {i}" for i in range(CLASSES.rows)]
    (tmp_path / "names.json").write_text(json.dumps(names))
    given = ("--mapping", "mapping.pt", "--heads", "2", "--grid", "4", "--labels", "names.json", "--name", "mine")
    done = vqd("convert", "tiny.pth", "--to", "model", *given, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    told, written, following = done.stdout.splitlines()
    assert told.startswith("tiny.pth: 5 classes; 2 blocks of 16, 2 heads, 7 codes, 4x4 tokens, 100 timesteps; ")
    assert written.startswith(f"{tmp_path}/model: written; its logits differ")
    assert following == "serve it: vqd up --model model"
    assert json.loads((tmp_path / "model/labels.json").read_text()) == names
    info = load_model(tmp_path / "model").info
    assert (info.name, info.defaults.guidance_scale, info.defaults.truncation_rate) == ("mine", 1.5, 0.94)
    assert "writing transformer" in on_terminal("convert", "tiny.pth", "--to", "again", *given, cwd=tmp_path)


PEAK = """
import io, resource, sys
from pathlib import Path
from tqdm import tqdm
from service.models.convert.convert import convert
from service.models.convert.layout import Given
from service.models.convert.understanding import Options
for _ in convert(Path(sys.argv[1]), Path(sys.argv[2]), Options(given=Given(heads=4, grid=4)), tqdm(file=io.StringIO())):
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def peak(checkpoint: Path, to: Path) -> int:
    """Bytes in memory at most while a process converts it, pages of mapped files counted."""
    command = [sys.executable, "-c", PEAK, checkpoint, to]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=steady_memory())
    return int(done.stdout)


def test_memory_is_bounded_by_the_network(tmp_path: Path) -> None:
    """Of a checkpoint that holds the network three times, as training leaves it."""
    small, large = replace(NOTHING, layers=1), replace(NOTHING, layers=6, width=320, convolution=False)
    sizes = []
    for name, spec in (("small", small), ("large", large)):
        checkpoint = make_checkpoint(spec)
        network = {n: v for n, v in checkpoint["ema"].items() if n.startswith("transformer.")}
        checkpoint["optimizer_and_scheduler"] = {name: torch.randn_like(value) for name, value in network.items()}
        sizes.append(sum(value.nbytes for value in network.values()))
        torch.save(checkpoint, tmp_path / name)
    peaks = [peak(tmp_path / name, tmp_path / f"{name}-model") for name in ("small", "large")]
    assert (tmp_path / "large").stat().st_size > 1e8
    assert peaks[1] - peaks[0] < 1.5 * sizes[1]
