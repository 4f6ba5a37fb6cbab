"""Pictures to begin with on the real Triton, with the bundled model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from picture_files import UInt8, base64, file_of, half_mask, pixels_in
from PIL import Image

from service.diffusion.samplers import SAMPLERS
from service.lab.bench.inpaintings import CASES, draw_inpaintings

SIZE = 32
MASK = half_mask(SIZE)
LIMIT_S = 90.0


@pytest.fixture(scope="module")
def http(service: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service, timeout=LIMIT_S) as client:
        yield client


def make(http: httpx.Client, **fields: Any) -> tuple[UInt8, httpx.Headers]:
    answer = http.post("/generate", json={"seed": 7, **fields}, headers={"Accept": "image/png"})
    assert answer.status_code == 200, answer.text
    return pixels_in(answer.content), answer.headers


@pytest.fixture(scope="module")
def apple(http: httpx.Client) -> UInt8:
    return make(http, prompt="red apple")[0]


def test_a_picture_of_the_model_is_read_nearly_as_it_is(http: httpx.Client, apple: UInt8) -> None:
    again, _ = make(http, prompt="anything", image=base64(file_of(apple)), strength=0)
    error = np.abs(again.astype(int) - apple).mean()
    assert error < 16
    assert error < np.abs(again.astype(int) - apple[:, ::-1]).mean() / 2


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_the_mask_keeps_is_equal_and_the_rest_is_another(http: httpx.Client, apple: UInt8, sampler: str) -> None:
    asked = {
        "prompt": "blue circle",
        "image": base64(file_of(apple)),
        "mask": base64(file_of(MASK)),
        "sampler": sampler,
    }
    made, headers = make(http, **asked)
    assert (made[MASK == 0] == apple[MASK == 0]).all()
    assert np.abs(made.astype(int) - apple)[MASK > 0].mean() > 10
    assert make(http, **asked)[1]["X-Vqd-Tokens-Sha256"] == headers["X-Vqd-Tokens-Sha256"]


def test_a_stronger_change_changes_more(http: httpx.Client, apple: UInt8) -> None:
    def change(strength: float) -> float:
        made, _ = make(http, prompt="green apple", image=base64(file_of(apple)), strength=strength)
        return float(np.abs(made.astype(int) - apple).mean())

    little, much, everything = change(0.1), change(0.6), change(1)
    assert little < much < everything


def test_the_sheet_of_the_page(service: str, tmp_path: Path) -> None:
    """It holds every other pixel against what it was."""
    draw_inpaintings(service, tmp_path / "sheet.png")
    assert len(CASES) == 10
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 500
