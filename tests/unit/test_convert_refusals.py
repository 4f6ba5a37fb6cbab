"""What ``vqd convert`` refuses, each in one sentence that names the thing and says what to do."""

import gzip
import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import complaint, vqd
from tqdm import tqdm
from unit.official_checkpoint import CLASSES, NOTHING, TEXT, Spec, make_checkpoint, make_mapping, write_vocabulary

from service.errors import SetupError
from service.models.convert.convert import convert
from service.models.convert.layout import Given
from service.models.convert.understanding import Options

Checkpoint = dict[str, Any]
GUMBEL = replace(TEXT, quantiser="gumbel")


def refusal(folder: Path, options: Options, path: Path | None = None) -> str:
    """What a conversion of tiny.pth is refused with; it leaves nothing behind."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(SetupError) as raised:
        list(convert(path or folder / "tiny.pth", folder / "model", options, tqdm(file=io.StringIO())))
    assert sorted(folder.rglob("*")) == before
    return str(raised.value)


def given(spec: Spec, folder: Path, **sizes: Any) -> Options:
    vocabulary = write_vocabulary(folder / "vocabulary") if spec.kind == "text" else None
    if spec.codes != spec.full:
        torch.save(make_mapping(spec), folder / "mapping.pt")
    mapping = folder / "mapping.pt" if spec.codes != spec.full else None
    return Options(mapping, vocabulary, given=Given(**{"heads": 2, "grid": spec.grid} | sizes))


def without(prefix: str, part: str) -> Callable[[Checkpoint], None]:
    def damage(checkpoint: Checkpoint) -> None:
        kept = {name: value for name, value in checkpoint[part].items() if not name.startswith(prefix)}
        assert len(kept) < len(checkpoint[part])
        checkpoint[part] = kept

    return damage


def no_text_encoder(checkpoint: Checkpoint) -> None:
    without("condition_emb.", "ema")(checkpoint)
    without("transformer.condition_emb.", "model")(checkpoint)


def with_extra(name: str, part: str = "ema") -> Callable[[Checkpoint], None]:
    return lambda checkpoint: checkpoint[part].__setitem__(name, torch.zeros(3))


def reshaped(name: str, *shape: int, part: str = "ema") -> Callable[[Checkpoint], None]:
    return lambda checkpoint: checkpoint[part].__setitem__(name, torch.zeros(shape))


def filled(name: str, value: float, part: str = "ema") -> Callable[[Checkpoint], None]:
    return lambda checkpoint: checkpoint[part][name].view(-1)[0].fill_(value) and None


def other_schedule(checkpoint: Checkpoint) -> None:
    steps = torch.linspace(0, 1.5, 100, dtype=torch.float64)
    checkpoint["ema"]["log_cumprod_at"][:-1] = (steps.cos().square() * 0.9999 + 1e-5).log()


def shorter_schedule(checkpoint: Checkpoint) -> None:
    for name in ("log_cumprod_at", "log_cumprod_ct"):
        checkpoint["ema"][name] = checkpoint["ema"][name][:61]


def codec_only(checkpoint: Checkpoint) -> None:
    checkpoint["state_dict"] = checkpoint.pop("model")
    del checkpoint["ema"]


def no_schedule(checkpoint: Checkpoint) -> None:
    without("log_cumprod", "ema")(checkpoint)
    without("transformer.log_cumprod", "model")(checkpoint)


def list_of_states(checkpoint: Checkpoint) -> None:
    checkpoint["ema"] = list(checkpoint["ema"])


EMBEDDING = "transformer.content_emb."
BLOCK, LAYER = "transformer.blocks.0.", "transformer.blocks.1."
CODEC = "content_codec."
DAMAGED: dict[str, tuple[Spec, Callable[[Checkpoint], None], str]] = {
    "another schedule": (NOTHING, other_schedule, r"log_cumprod_at is not of the schedule alpha1 \(alpha_init_type\)"),
    "a schedule of other timesteps": (NOTHING, shorter_schedule, "is of 60 timesteps, the network of 100"),
    "no schedule": (NOTHING, no_schedule, "log_cumprod_at is missing"),
    "no codec": (NOTHING, without(CODEC, "model"), r"picture codec \(content_codec\.\*\) is missing"),
    "half a codec": (NOTHING, without(f"{CODEC}dec.decoder.mid", "model"), r"dec\.decoder\.mid\.\S+ is missing"),
    "no encoder": (NOTHING, without(f"{CODEC}enc.encoder", "model"), r"enc\.encoder\.down\.0 is missing"),
    "no codes": (NOTHING, without(f"{CODEC}enc.quantize", "model"), r"the codec's codes .* are missing"),
    "half an average": (NOTHING, without(f"{LAYER}mlp", "ema"), r"blocks\.1\.mlp\.conv1\.weight is missing"),
    "no text encoder": (TEXT, no_text_encoder, r"the text encoder \(condition_emb\.\*\) is missing"),
    "a projection that is missing": (GUMBEL, without(f"{CODEC}enc.quantize.proj.bias", "model"), r"proj\.bias is miss"),
    "a key too many": (NOTHING, with_extra(f"{LAYER}attn3.key"), r"blocks\.1\.attn3\.key belongs to no part"),
    "a table too many": (NOTHING, with_extra("rates"), "rates belongs to no part"),
    "an embedding of classes": (CLASSES, with_extra("condition_emb.emb.weight"), r"condition_emb\.emb\.weight belongs"),
    "a part too many": (NOTHING, with_extra("discriminator.main", "model"), r"'model' has discriminator\.main"),
    "a codec with more": (NOTHING, with_extra(f"{CODEC}loss.x", "model"), r"content_codec\.loss\.x belongs to no part"),
    "a text encoder with more": (TEXT, with_extra("condition_emb.visual"), r"condition_emb\.visual belongs to no part"),
    "a wrong shape": (
        NOTHING,
        reshaped(f"{LAYER}attn.key.weight", 16, 15),
        r"blocks\.1\.attn\.key\.weight has the shape \[16, 15\].*must be \[16, 16\]",
    ),
    "a codec's wrong shape": (
        NOTHING,
        reshaped(f"{CODEC}dec.decoder.conv_out.weight", 4, 32, 3, 3, part="model"),
        r"conv_out\.weight has the shape \[4, 32, 3, 3\].*must be \[3, 32, 3, 3\]",
    ),
    "a number for a table": (
        NOTHING,
        reshaped("transformer.content_emb.emb.weight"),
        r"emb\.weight has the shape \[\]",
    ),
    "no rows of classes": (
        CLASSES,
        reshaped(f"{BLOCK}ln2.emb.weight", 0, 16),
        r"ln2\.emb\.weight has the shape \[0, 16\]",
    ),
    "two thirds of a projection": (
        TEXT,
        reshaped("condition_emb.transformer.resblocks.0.attn.in_proj_bias", 2),
        r"in_proj_bias has the shape \[2\], which does not fit",
    ),
    "a flat attention of the codec": (
        NOTHING,
        reshaped(f"{CODEC}enc.encoder.mid.attn_1.q.weight", 32, part="model"),
        r"attn_1\.q\.weight has the shape \[32\], which does not fit",
    ),
    "a null of another shape": (
        replace(TEXT, null=True),
        reshaped("empty_text_embed", 8, 32),
        r"empty_text_embed has the shape \[8, 32\]; its text encoder's states are \[8, 64\]",
    ),
    "a table that is no square": (
        NOTHING,
        reshaped(f"{EMBEDDING}height_emb.weight", 6, 16),
        "table of positions is 6x8; only square ones",
    ),
    "a wider first level": (
        NOTHING,
        reshaped(f"{CODEC}enc.encoder.conv_in.weight", 16, 3, 3, 3, part="model"),
        "ch_mult begins with 2; only 1",
    ),
    "not a number": (
        NOTHING,
        filled(f"{LAYER}ln2.bias", float("nan")),
        r"blocks\.1\.ln2\.bias has values that are not",
    ),
    "infinity in the codec": (
        NOTHING,
        filled(f"{CODEC}dec.decoder.conv_in.bias", float("inf"), "model"),
        r"decoder\.conv_in\.bias has values that are not finite",
    ),
    "infinity in the codes": (
        replace(NOTHING, full=20),
        filled(f"{CODEC}enc.quantize.embedding.weight", float("inf"), "model"),
        r"dec\.quantize\.embedding\.weight has values that are not finite",
    ),
    "a state dict alone": (NOTHING, codec_only, "holds no 'model'.* it holds last_epoch"),
    "an average that is no state dict": (NOTHING, list_of_states, "'ema' is not a state dict"),
}


@pytest.mark.parametrize(("spec", "damage", "says"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_checkpoint_is_refused(
    spec: Spec, damage: Callable[[Checkpoint], None], says: str, tmp_path: Path
) -> None:
    checkpoint = make_checkpoint(spec)
    damage(checkpoint)
    torch.save(checkpoint, tmp_path / "tiny.pth")
    message = refusal(tmp_path, given(spec, tmp_path))
    assert message.startswith(f"{tmp_path}/tiny.pth")
    assert re.search(says, message), message


SIZES: dict[str, tuple[Spec, dict[str, int | None], str]] = {
    "heads that do not divide": (NOTHING, {"heads": None}, "16 heads do not divide its width 20: give --heads"),
    "the released grid": (NOTHING, {"grid": None}, "16x16 tokens do not fit its 8x8 table of positions: give --grid"),
    "another grid than the file's": (TEXT, {"grid": 2}, r"attn2\.mask is of 16 tokens, not of a grid of 2"),
    "an odd picture size": (NOTHING, {"grid": None, "size": 7}, "pictures of 7 pixels do not go with its codec"),
    "sizes that contradict": (NOTHING, {"size": 16}, "pictures of 16 pixels .* and with a grid of 4: correct --size"),
    "other classes": (CLASSES, {"classes": 3}, "3 classes do not go with its 5 rows of classes: correct --classes"),
}


@pytest.mark.parametrize(("spec", "sizes", "says"), SIZES.values(), ids=SIZES.keys())
def test_sizes_that_cannot_be_are_refused(spec: Spec, sizes: dict[str, int | None], says: str, tmp_path: Path) -> None:
    torch.save(make_checkpoint(replace(spec, width=20)), tmp_path / "tiny.pth")
    assert re.search(says, refusal(tmp_path, given(spec, tmp_path, **sizes)))


class Evil:
    """Unpickled by somebody careless, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def truncated(path: Path) -> None:
    torch.save(make_checkpoint(NOTHING), path)
    path.write_bytes(path.read_bytes()[:-1000])


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("weights", "")


def old_form(path: Path) -> None:
    torch.save(make_checkpoint(NOTHING), path, _use_new_zipfile_serialization=False)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "is not there": (lambda _: None, "there is no such checkpoint"),
    "is a folder": (Path.mkdir, "there is no such checkpoint"),
    "is empty": (Path.touch, "is no checkpoint as torch saves it since 1.6"),
    "is text": (lambda path: path.write_text("weights"), "is no checkpoint as torch saves it since 1.6"),
    "is cut short": (truncated, "is cut short: download it again"),
    "is another zip": (other_zip, "cannot be read: .*Download it again"),
    "is of old torch": (old_form, "if it is an older one, load it with torch and save it again"),
    "is a pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "Git LFS pointer.*git lfs pull",
    ),
    "is a tensor": (lambda path: torch.save(torch.zeros(3), path), "holds a Tensor, not the dict of a training"),
    "is an empty dict": (lambda path: torch.save({}, path), "holds no 'model'.* it holds nothing"),
    "has other things in the model": (
        lambda path: torch.save({"model": {"a": 1}}, path),
        "'model' is not a state dict",
    ),
}


@pytest.mark.parametrize(("make", "says"), FILES.values(), ids=FILES.keys())
def test_a_file_that_is_no_checkpoint_is_refused(make: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    make(tmp_path / "tiny.pth")
    message = refusal(tmp_path, given(NOTHING, tmp_path))
    assert re.search(says, message), message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["tiny.pth", "mapping.pt"])
def test_nothing_in_a_pickle_is_run(name: str, tmp_path: Path) -> None:
    spec = replace(CLASSES, full=20)
    options = given(spec, tmp_path)
    torch.save(make_checkpoint(spec), tmp_path / "tiny.pth")
    torch.save({"model": Evil(tmp_path / "ran")}, tmp_path / name)
    message = refusal(tmp_path, options)
    assert message.startswith(f"{tmp_path}/{name}")
    assert not re.search("weights_only|safe_globals", message), "torch's advice is to trust the file"
    assert not (tmp_path / "ran").exists()
    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        torch.load(tmp_path / name, weights_only=True)


MAPPINGS: dict[str, tuple[Any, str]] = {
    "is missing": (None, r"the network knows 7 codes and the codec 20: give --mapping FILE; .*taming_vqvae_974\.pt"),
    "is of another length": (torch.arange(19) % 7, "maps 19 codes, and the codec of .* has 20"),
    "has other codes": (torch.arange(20) % 8, "maps to the codes 0 to 7, .* than the 7 that the network knows"),
    "has fewer codes": (torch.arange(20) % 6, "maps to the codes 0 to 5"),
    "leaves a code out": (torch.tensor([0, 1, 2, 3, 5, 6, *[0] * 14]), "maps to the codes 0 to 6, not all of them"),
    "is no list": (torch.zeros(20, 2, dtype=torch.int64), "is no mapping of codes, which is a list of whole numbers"),
    "is of floats": (torch.zeros(20), "is a list of whole numbers"),
    "is a dict": ({"a": 1}, "is a list of whole numbers"),
}


@pytest.mark.parametrize(("mapping", "says"), MAPPINGS.values(), ids=MAPPINGS.keys())
def test_a_mapping_that_does_not_fit_is_refused(mapping: Any, says: str, tmp_path: Path) -> None:
    spec = replace(CLASSES, full=20)
    torch.save(make_checkpoint(spec), tmp_path / "tiny.pth")
    options = given(spec, tmp_path)
    torch.save(mapping, tmp_path / "mapping.pt")
    assert re.search(says, refusal(tmp_path, replace(options, mapping=None) if mapping is None else options))


def test_a_mapping_that_is_not_there_is_refused(tmp_path: Path) -> None:
    torch.save(make_checkpoint(NOTHING), tmp_path / "tiny.pth")
    options = replace(given(NOTHING, tmp_path), mapping=tmp_path / "none.pt")
    assert "none.pt: there is no such mapping; the files taming_vqvae_2887.pt" in refusal(tmp_path, options)


def other_words(folder: Path) -> None:
    words = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(words | {"more": len(words)}))


VOCABULARIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "has more words": (other_words, "has 518 tokens, and the checkpoint's text encoder 517: it is another vocabulary"),
    "has no merges": (lambda folder: (folder / "merges.txt").unlink(), "holds no tokenizer: .*merges.txt"),
    "is no JSON": (lambda folder: (folder / "vocab.json").write_text("{"), "holds no tokenizer"),
    "is a list": (lambda folder: (folder / "vocab.json").write_text("[]"), "does not number its tokens"),
    "has gaps": (lambda folder: (folder / "vocab.json").write_text('{"a": 1}'), "does not number its tokens"),
}


@pytest.mark.parametrize(("damage", "says"), VOCABULARIES.values(), ids=VOCABULARIES.keys())
def test_a_vocabulary_that_does_not_fit_is_refused(damage: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    torch.save(make_checkpoint(TEXT), tmp_path / "tiny.pth")
    options = given(TEXT, tmp_path)
    damage(tmp_path / "vocabulary")
    message = refusal(tmp_path, options)
    assert re.search(says, message), message
    assert "open-clip-torch brings as open_clip/bpe_simple_vocab_16e6.txt.gz" in message


BROKEN_MERGES = [None, b"no gzip", *(gzip.compress(text, mtime=0) for text in (b"\xff", b"# version\na b\n"))]


@pytest.mark.parametrize("content", BROKEN_MERGES)
def test_a_file_of_merges_that_does_not_fit_is_refused(content: bytes | None, tmp_path: Path) -> None:
    torch.save(make_checkpoint(TEXT), tmp_path / "tiny.pth")
    file = tmp_path / "merges.gz"
    if content is not None:
        file.write_bytes(content)
    options = replace(given(TEXT, tmp_path), tokenizer=None if content is None else file)
    assert "CLIP's vocabulary is not in the checkpoint: give --tokenizer" in refusal(tmp_path, options)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "names.json cannot be read"),
        ("{", "names.json cannot be read"),
        ('{"a": 1}', "is no JSON list of the classes' names"),
        ("[1, 2, 3, 4, 5]", "is no JSON list of the classes' names"),
        ('["a"]', "names 1 classes, the model has 5"),
    ],
)
def test_names_of_classes_that_do_not_fit_are_refused(text: str | None, says: str, tmp_path: Path) -> None:
    torch.save(make_checkpoint(CLASSES), tmp_path / "tiny.pth")
    if text is not None:
        (tmp_path / "names.json").write_text(text)
    assert says in refusal(tmp_path, replace(given(CLASSES, tmp_path), labels=tmp_path / "names.json"))


def test_the_command_says_it_in_one_line(tmp_path: Path) -> None:
    truncated(tmp_path / "tiny.pth")
    assert "download it again" in complaint(vqd("convert", "tiny.pth", "--to", "model", cwd=tmp_path))
