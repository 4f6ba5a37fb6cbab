"""The same picture again, on the real engine: number two of four alone, and files by ``vqd replay``."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from commands import vqd
from picture_files import file_of, half_mask

from service.client.saving import generate
from service.diffusion.samplers import SAMPLERS

README = {"prompt": "red apple", "seed": 7, "steps": 6}
PURE = {"sampler": "purity", "purity_form": "power", "final_resample": False}
KINDS: list[dict[str, Any]] = [{"sampler": name} for name in SAMPLERS] + [
    {**PURE, "n": 2, "format": "webp"},
    {"sampler": "md4", "masking_schedule": "linear", "image_index": 9, "format": "jpeg"},
    {"sampler": "halton", "image_index": 3, "negative_prompt": "grün", "metadata": True, "guidance_scale": 3},
]
LIMIT_S = 90.0


@pytest.fixture(scope="module")
def http(service: str) -> Any:
    with httpx.Client(base_url=service, timeout=LIMIT_S) as client:
        yield client


def tokens(http: httpx.Client, fields: dict[str, Any]) -> list[str]:
    answer = http.post("/generate", json=fields)
    assert answer.status_code == 200, answer.text
    return [image["tokens_sha256"] for image in answer.json()["images"]]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_number_two_of_four_is_made_alone(http: httpx.Client, sampler: str) -> None:
    fields = {**README, "sampler": sampler}
    four = tokens(http, {**fields, "n": 4})
    assert len(set(four)) == 4
    assert tokens(http, {**fields, "n": 1, "image_index": 2}) == four[2:3]
    assert tokens(http, {**fields, "n": 2, "image_index": 1}) == four[1:3]


def test_ten_files_of_different_samplers_are_equal(service: str, tmp_path: Path) -> None:
    paths = [saved.path for fields in KINDS for saved in generate(service, {**README, **fields}, tmp_path).images]
    done = vqd("replay", *map(str, paths), "--url", service, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{path}: equal" for path in paths]
    assert len(paths) == 10


def test_ten_files_of_different_samplers_two_of_them_edits_are_equal(service: str, tmp_path: Path) -> None:
    """By the commands, as a person gives them."""
    given = ("--url", service, "--out", ".")
    assert vqd("generate", "red apple", "--seed", "7", *given, cwd=tmp_path).returncode == 0
    (tmp_path / "red-apple-7-0.png").rename(tmp_path / "apple.png")
    (tmp_path / "mask.png").write_bytes(file_of(half_mask(32)))
    pictures = ("--image", "apple.png", "--mask", "mask.png")
    kinds = [("--sampler", name) for name in SAMPLERS]
    kinds += [("--sampler", "halton", *pictures), ("--sampler", "purity", *pictures[:2], "--strength", "0.5")]
    kinds += [("--sampler", "md4", "--masking-schedule", "linear", "--format", "jpeg"), ("--format", "webp")]
    made = [vqd("generate", "green apple", *kind, *given, cwd=tmp_path) for kind in kinds]
    assert [(done.returncode, done.stderr) for done in made] == [(0, "")] * 10
    paths = [done.stdout.partition("  ")[0] for done in made]
    done = vqd("replay", *paths, *pictures, "--url", service, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{path}: equal" for path in paths]


def test_a_request_of_an_answer_makes_the_same_bytes(http: httpx.Client) -> None:
    answer = http.post("/generate", json={**README, "sampler": "md4", "n": 3, "format": "webp"}).json()
    for image in answer["images"]:
        (again,) = http.post("/generate", json=image["request"]).json()["images"]
        assert again["b64_json"] == image["b64_json"]
