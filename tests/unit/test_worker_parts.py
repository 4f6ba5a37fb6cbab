"""Small parts of the worker: images, prompts, packing of grids."""

import io

import numpy as np
import pytest
from PIL import Image
from samples import make_parameters
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from service.diffusion.samplers import SAMPLERS
from service.engine.grid import pack, tokens_sha256, unpack
from service.engine.prompts import PromptTokenizer
from service.errors import InvalidRequest
from service.messages import ImageFormat, ModelInfo
from service.worker.images import encode_image


def make_info(**changes: object) -> ModelInfo:
    defaults = make_parameters()
    fields: dict[str, object] = {
        "name": "m",
        "sha256": "0" * 64,
        "description": "",
        "licence": "",
        "attributions": (),
        "tokens": 16,
        "codes": 8,
        "image_width": 8,
        "image_height": 8,
        "text_positions": 6,
        "timesteps": 100,
        "prompt_template": "{prompt}",
        "defaults": defaults,
        "ranges": {},
        "samplers": tuple(SAMPLERS),
    }
    return ModelInfo.model_validate(fields | changes)


def prompts(**changes: object) -> PromptTokenizer:
    words = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "red": 3, "apple": 4, "a": 5, "?": 6}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.enable_padding(length=6)
    return PromptTokenizer(tokenizer, make_info(**changes))


def test_a_prompt_is_put_in_the_template_and_padded() -> None:
    text = prompts(prompt_template="a {prompt}").tokenise("red apple")
    assert text.ids.tolist() == [1, 5, 3, 4, 2, 0]
    assert text.mask.tolist() == [1, 1, 1, 1, 1, 0]
    assert text.ids.dtype == np.int32


def test_a_prompt_that_does_not_fit_is_refused_naming_what_is_too_much() -> None:
    with pytest.raises(InvalidRequest, match=r"^prompt: is 8 tokens long, at most 6 .* before 'red apple'") as caught:
        prompts().tokenise("a a a a red apple")
    assert caught.value.field == "prompt"
    with pytest.raises(InvalidRequest, match=r"^negative_prompt: is 7"):
        prompts().tokenise_negative("a a a a a")


def test_no_negative_prompt_asks_for_the_null_states() -> None:
    text = prompts().tokenise_negative(None)
    assert text.ids.tolist() == text.mask.tolist() == [0] * 6


@pytest.mark.parametrize("image_format", list(ImageFormat))
def test_images_decode_to_what_was_encoded(image_format: ImageFormat) -> None:
    pixels = np.full((8, 12, 3), (200, 40, 90), np.uint8)
    decoded = Image.open(io.BytesIO(encode_image(pixels, image_format)))
    assert decoded.format == image_format.upper()
    assert decoded.size == (12, 8)
    assert np.abs(np.asarray(decoded.convert("RGB")).astype(int) - pixels).max() <= (
        0 if image_format is ImageFormat.PNG else 6
    )


def test_a_grid_survives_packing_and_its_digest_tells_grids_apart() -> None:
    grid = np.arange(64, dtype=np.int32)
    assert (unpack(pack(grid)) == grid).all()
    other = grid.copy()
    other[63] = 0
    assert tokens_sha256(grid) != tokens_sha256(other)
    # Known answer: the digest is part of the HTTP contract.
    assert tokens_sha256(np.zeros(2, np.int32)) == "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc"
