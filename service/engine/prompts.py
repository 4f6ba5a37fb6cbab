"""Prompts to token ids, never silently cut."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.errors import InvalidRequest
from service.messages import ModelInfo


@dataclass(frozen=True)
class Tokenised:
    """``ids`` and ``mask`` INT32 [S]; an all-zero mask asks the text encoder for its null states."""

    ids: NDArray[np.int32]
    mask: NDArray[np.int32]

    @property
    def is_null(self) -> bool:
        return not self.mask.any()


class PromptTokenizer:
    """The tokenizer of one model. It pads to the model's text positions and does not truncate."""

    def __init__(self, tokenizer: Tokenizer, info: ModelInfo) -> None:
        self.tokenizer, self.info = tokenizer, info

    def tokenise(self, prompt: str) -> Tokenised:
        """The prompt in the model's template. Raises InvalidRequest when it is longer than the model can read."""
        return self.encode("prompt", self.info.prompt_template.replace("{prompt}", prompt))

    def tokenise_negative(self, prompt: str | None) -> Tokenised:
        """A negative prompt as it is; None is the model's null."""
        if prompt is None:
            zeros = np.zeros(self.info.text_positions, np.int32)
            return Tokenised(zeros, zeros)
        return self.encode("negative_prompt", prompt)

    def encode(self, field: str, text: str) -> Tokenised:
        encoding = self.tokenizer.encode(text)
        limit = self.info.text_positions
        if len(encoding.ids) > limit:
            first_cut = encoding.offsets[limit - 1][0]
            raise InvalidRequest(
                field,
                f"is {len(encoding.ids)} tokens long, at most {limit} are allowed; "
                f"shorten it before {text[first_cut : first_cut + 40]!r}",
            )
        return Tokenised(np.array(encoding.ids, np.int32), np.array(encoding.attention_mask, np.int32))
