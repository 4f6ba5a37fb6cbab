"""Bring your own model: a folder that diffusers wrote is exported and served."""

import io
from base64 import b64decode
from pathlib import Path

import httpx
from PIL import Image
from running import supervised

from service.export.build import export_model


def test_a_diffusers_folder_is_served(pipeline: Path, tmp_path: Path) -> None:
    info = export_model(pipeline, tmp_path / "repository")
    fields = {"prompt": "the red cat", "seed": 3, "steps": 8, "tokens_per_step": 8, "n": 2}
    with (
        supervised(tmp_path / "repository", tmp_path / "run") as supervisor,
        httpx.Client(base_url=supervisor.url, timeout=60) as http,
    ):
        (model,) = http.get("/v1/models").json()["data"]
        answers = [http.post("/generate", json=body) for body in (fields, fields, {**fields, "seed": 4})]
    assert (model["id"], model["sha256"]) == (pipeline.name, info.sha256)
    assert [answer.status_code for answer in answers] == [200] * 3
    first, again, other = (answer.json()["images"] for answer in answers)
    assert first == again
    assert not {image["tokens_sha256"] for image in first} & {image["tokens_sha256"] for image in other}
    for image in first:
        picture = Image.open(io.BytesIO(b64decode(image["b64_json"])))
        assert picture.size == (16, 16)
        assert len(picture.getcolors(256) or []) > 10
