"""Our tokens against those that the official code made of the same prompts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import make_info

from service.engine.prompts import PromptTokenizer
from service.models.tokenizer import load_tokenizer

OFFICIAL = Path(__file__).parents[3] / "shared/fixtures/official"
POSITIONS = 77

pytestmark = pytest.mark.skipif(not OFFICIAL.exists(), reason=f"the official code's results are not at {OFFICIAL}")


@pytest.mark.parametrize("family", ["coco", "ithq"])
@pytest.mark.parametrize(("kind", "ids"), [("prompts", "prompt_ids"), ("odd", "odd_ids")])
def test_ids_equal_the_official_codes(family: str, kind: str, ids: str) -> None:
    folder = OFFICIAL / family
    golden: Any = np.load(folder / "golden.npz")
    texts = json.loads((folder / "prompts.json").read_text())[kind]
    prompts = PromptTokenizer(load_tokenizer(folder / "tokenizer", POSITIONS), make_info(text_positions=POSITIONS))
    ours = [prompts.encode("prompt", prompts.clean(text), truncate=True) for text in texts]
    assert [one.ids.tolist() for one in ours] == golden[ids].tolist()
    lengths = [int(one.mask.sum()) for one in ours]
    assert lengths == (golden["odd_length"] if kind == "odd" else golden["prompt_mask"].sum(1)).tolist()
