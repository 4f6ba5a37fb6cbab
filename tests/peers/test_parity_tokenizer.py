"""Our CLIP tokenizer against transformers', on a vocabulary of every byte and a few merges."""

from pathlib import Path

import pytest
from peers.pipeline_folder import END, START, clip_vocabulary, write_clip_tokenizer
from tokenizers import Tokenizer
from transformers import CLIPTokenizer

from service.models.tokenizer import load_tokenizer

POSITIONS = 77
TEXTS = (
    "",
    " ",
    "the cat",
    "The CAT   is\tsleeping\n",
    "a red bird, with 12 blue (or 3½) wings.",
    "don't we're I've I'm she'll he'd cat's 'sup ''s",
    "wow!!! what?!  ...and -- then/or #tag @you £5 50% a&b c_d e=f [x] {y}",
    "café naïve Ångström ÉCOLE ﬁne ǅ İstanbul Straße",
    "cafe\u0301 a\u030a n\u0303",
    "고양이가 의자에 앉아 있다",
    "\u1100\u1161\u11a8",
    "一隻紅色的鳥 かわいい ネコ",
    "жар-птица ΑΒΓς अभिनव ภาษาไทย سلام",
    "🐈‍⬛ sits 👩🏽‍🚀 on 🇰🇷 flag ❤️",
    "1234567890 ١٢٣ ⅷ 10³",
    "zero\u200bwidth \u00a0nbsp\u3000wide \u2028line",
    "<|endoftext|> inside <|startoftext|>text",
    "\U0001d518\U0001d52b 𐍈 \U0010ffff",
    "the the cat" * 30,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_clip_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def ours(folder: Path) -> Tokenizer:
    return load_tokenizer(folder, POSITIONS)


def without_padding(tokenizer: Tokenizer, text: str) -> list[int]:
    encoding = tokenizer.encode(text)
    return [i for i, real in zip(encoding.ids, encoding.attention_mask, strict=True) if real]


@pytest.mark.parametrize("text", TEXTS)
def test_ids_equal_transformers(folder: Path, ours: Tokenizer, text: str) -> None:
    """transformers with its own pad token, because it reads a pad token written in a prompt as padding."""
    theirs = CLIPTokenizer.from_pretrained(folder, pad_token=END)
    assert without_padding(ours, text) == theirs(text).input_ids


def test_padding_is_the_folders_and_equals_transformers(folder: Path, ours: Tokenizer) -> None:
    theirs = CLIPTokenizer.from_pretrained(folder)
    encoded = theirs("the red cat", padding="max_length", max_length=POSITIONS)
    assert ours.encode("the red cat").ids == encoded.input_ids
    assert ours.encode("the red cat").attention_mask == encoded.attention_mask
    assert ours.encode("the red cat").ids[-1] == 0


def test_an_exclamation_mark_is_not_padding(ours: Tokenizer) -> None:
    """The released folders pad with "!" (id 0); a "!" of the prompt keeps its own token, as in CLIP's code."""
    vocabulary = clip_vocabulary()
    expected = [vocabulary[word] for word in (START, "the</w>", "cat</w>", "!!</w>", END)]
    assert without_padding(ours, "the cat !!") == expected


def test_a_saved_tokenizer_json_gives_the_same_ids(folder: Path, ours: Tokenizer, tmp_path: Path) -> None:
    ours.save(str(tmp_path / "tokenizer.json"))
    again = load_tokenizer(tmp_path, POSITIONS)
    assert [again.encode(text).ids for text in TEXTS] == [ours.encode(text).ids for text in TEXTS]
