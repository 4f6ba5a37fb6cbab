"""The same picture again, on the real engine: number two of four alone, and files by ``vqd replay``."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from commands import vqd

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


def test_a_request_of_an_answer_makes_the_same_bytes(http: httpx.Client) -> None:
    answer = http.post("/generate", json={**README, "sampler": "md4", "n": 3, "format": "webp"}).json()
    for image in answer["images"]:
        (again,) = http.post("/generate", json=image["request"]).json()["images"]
        assert again["b64_json"] == image["b64_json"]
