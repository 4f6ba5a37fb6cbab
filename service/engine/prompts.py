"""Prompts to token ids. Nothing is cut unless the request asks for it, and what is not drawn as written is said."""

import html
from dataclasses import dataclass

import ftfy
import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from service.engine.words import EXCERPT_CHARS, Span, Words, named, quoted, read_words, unknown_warning
from service.errors import InvalidRequest
from service.serving import ModelInfo

SLOT = "{prompt}"
CLIP_WORD_END = "</w>"


@dataclass(frozen=True)
class Tokenised:
    """``ids`` and ``mask`` INT32 [S]; an all-zero mask asks the text encoder for its null states.

    ``warnings``: what of the text is not drawn as it is written, in sentences for the client.
    """

    ids: NDArray[np.int32]
    mask: NDArray[np.int32]
    warnings: tuple[str, ...] = ()

    @property
    def is_null(self) -> bool:
        return not self.mask.any()

    @property
    def size(self) -> int:
        """How many tokens the encoder reads, without the padding."""
        return int(self.mask.sum())

    @property
    def key(self) -> bytes:
        """The same for texts that the encoder cannot tell apart."""
        return self.ids.tobytes() + self.mask.tobytes()


class PromptTokenizer:
    """The tokenizer of one model. It pads to the model's text positions and does not truncate."""

    def __init__(self, tokenizer: Tokenizer, info: ModelInfo) -> None:
        self.tokenizer, self.info = tokenizer, info
        self.unknown_token = getattr(tokenizer.model, "unk_token", None)
        self.is_clip = getattr(tokenizer.model, "end_of_word_suffix", None) == CLIP_WORD_END

    def tokenise(self, prompt: str, truncate: bool = False) -> Tokenised:
        """The prompt in the model's template.

        Raises InvalidRequest when the model knows nothing of it, or cannot read all of it and ``truncate`` is false.
        """
        prompt, template = self.clean(prompt), self.info.prompt_template
        begin = len(template.partition(SLOT)[0])
        part = slice(begin, begin + len(prompt))
        tokenised, words = self.read("prompt", template.replace(SLOT, prompt), part, truncate)
        if not words.any_known:
            nothing = f"the model knows nothing of it: {named(words.unknown)}; say it in other words"
            raise InvalidRequest("prompt", nothing if words.unknown else "nothing is left of it that could be drawn")
        return tokenised

    def tokenise_negative(self, prompt: str | None, truncate: bool = False) -> Tokenised:
        """A negative prompt without a template; None, and one that shows nothing, is the model's null."""
        zeros = np.zeros(self.info.text_positions, np.int32)
        if prompt is None:
            return Tokenised(zeros, zeros)
        prompt = self.clean(prompt)
        tokenised, words = self.read("negative_prompt", prompt, slice(len(prompt)), truncate)
        return tokenised if words.any_known or words.unknown else Tokenised(zeros, zeros)

    def clean(self, text: str) -> str:
        """As the official code before CLIP's BPE. Other models learned from text as it is, and get it as it is."""
        if not self.is_clip:
            return text
        return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split()).lower()

    def encode(self, field: str, text: str, truncate: bool = False) -> Tokenised:
        """``text`` as it is, without a template. Raises InvalidRequest."""
        return self.read(field, text, slice(len(text)), truncate)[0]

    def read(self, field: str, text: str, part: slice, truncate: bool) -> tuple[Tokenised, Words]:
        """``text``, cut to the model's positions if it must be and may be; and the words of a ``part`` of what is left.

        Raises InvalidRequest.
        """
        encoding = self.tokenizer.encode(text)
        limit, size, end = self.info.text_positions, len(encoding.ids), len(text)
        ids, mask, warnings = encoding.ids, encoding.attention_mask, []
        if size > limit:
            closing = encoding.special_tokens_mask[-1]  # 1 where a token of its own ends every text
            end = encoding.offsets[limit - closing][0]
            cut = quoted(text[end:], EXCERPT_CHARS)
            if not truncate:
                allowed = f"is {size} tokens long, at most {limit} are allowed"
                raise InvalidRequest(field, f"{allowed}; shorten it before {cut}, or have it cut with truncate_prompt")
            warnings.append(f"{field}: cut to {limit} of its {size} tokens; not drawn: {cut}")
            ids, mask = ids[: limit - closing] + ids[size - closing :], mask[:limit]
        words = read_words(text, slice(part.start, min(part.stop, end)), *self.spans(encoding, text))
        if words.unknown:
            warnings.append(unknown_warning(field, words.unknown))
        return Tokenised(np.array(ids, np.int32), np.array(mask, np.int32), tuple(warnings)), words

    def spans(self, encoding: Encoding, text: str) -> tuple[list[Span], list[Span]]:
        """Where the known tokens are in the text, and where the unknown ones."""
        known: list[Span] = []
        unknown: list[Span] = []
        for token, span in zip(encoding.tokens, encoding.offsets, strict=True):
            # CLIP's unknown token is its end token, which may be written out in a prompt.
            is_known = token != self.unknown_token or (self.is_clip and text[slice(*span)] == token)
            (known if is_known else unknown).append(span)
        return known, unknown
