"""Which words of a text its tokenizer knows, and how to name those that it does not."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MOST_NAMED, WORD_CHARS, EXCERPT_CHARS = 4, 16, 40
"""Bounds of what is quoted: it goes into a header, too."""

Span = tuple[int, int]


@dataclass(frozen=True)
class Words:
    """Of a part of a text: whether anything of it is known, and what is not, each word once, in order."""

    any_known: bool
    unknown: tuple[str, ...]


def read_words(text: str, part: slice, known: Iterable[Span], unknown: Iterable[Span]) -> Words:
    """What ``part`` of the text has, given the spans of all known and unknown tokens.

    What is in no token, because the tokenizer dropped it, is unknown if it shows anything.
    """
    is_known = bytearray(len(text))
    for value, spans in ((1, known), (0, unknown)):  # of a character's bytes one may be known and another not
        for start, end in spans:
            is_known[start:end] = bytes([value]) * (end - start)
    rest = "".join(" " if hidden else c for c, hidden in zip(text[part], is_known[part], strict=True))
    return Words(any(is_known[part]), tuple(dict.fromkeys(filter(is_visible, rest.split()))))


def is_visible(word: str) -> bool:
    """Joiners, marks and variation selectors show nothing by themselves."""
    return any(unicodedata.category(c) not in ("Cc", "Cf", "Mc", "Me", "Mn") for c in word)


def quoted(text: str, most: int) -> str:
    """In quotes, so many characters of it at most, and nothing that a terminal would act upon."""
    return repr(text if len(text) <= most else text[:most] + "…")


def named(words: Sequence[str]) -> str:
    more = f" and {len(words) - MOST_NAMED} more" if len(words) > MOST_NAMED else ""
    return ", ".join(quoted(word, WORD_CHARS) for word in words[:MOST_NAMED]) + more


def unknown_warning(field: str, words: Sequence[str]) -> str:
    drawn = "it was drawn as an unknown word" if len(words) == 1 else "they were drawn as unknown words"
    return f"{field}: the model does not know {named(words)}; {drawn}"
