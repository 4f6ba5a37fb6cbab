"""Partial pictures of the bundled model, as the unmodified ``openai`` packages of PyPI and npm get them."""

import io
import json
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from integration.gateway_harness import until
from integration.npm import installed
from picture_files import file_of, half_mask, noise
from PIL import Image

NPM_PACKAGE = "openai@7.57.0"
PROMPT, SIZE = "red apple", (64, 64)
LONG = {"tokens_per_step": 1, "steps": 64}
SCRIPT = """
import fs from "node:fs";
import OpenAI from "openai";
const [baseURL, folder] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none is needed", maxRetries: 0 });
const file = (name) => fs.createReadStream(`${folder}/${name}.png`);
const asked = { prompt: "red apple", size: "64x64", output_format: "webp", stream: true, partial_images: 2 };
const long = { ...asked, tokens_per_step: 1, steps: 64 };
const events = [];
for (const ask of [
    () => client.images.generate(long),
    () => client.images.edit({ ...long, image: file("image"), mask: file("mask") }),
])
    for await (const event of await ask()) events.push(event);
console.log(JSON.stringify(events));
"""


@pytest.fixture
def client(service: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service}/v1", api_key="none is needed", max_retries=0) as client:
        yield client


def stream(client: openai.OpenAI, edit: bool, most: int, **more: int) -> list[Any]:
    asked: dict[str, Any] = {
        "prompt": PROMPT,
        "size": "64x64",
        "output_format": "webp",
        "stream": True,
        "partial_images": most,
        "extra_body": more,
    }
    if edit:
        files = {"image": file_of(noise(32, 32)), "mask": file_of(half_mask(32))}
        return list(client.images.edit(**asked, **{name: (f"{name}.png", file) for name, file in files.items()}))
    return list(client.images.generate(**asked))


def check(events: list[dict[str, Any]], kind: str, most: int) -> None:
    """Some come before the picture, in its size and format, and none twice."""
    *partials, completed = events
    assert completed["type"] == f"{kind}.completed"
    assert {event["type"] for event in partials} == {f"{kind}.partial_image"}
    assert [event["partial_image_index"] for event in partials] == [*range(len(partials))]
    assert 1 <= len(partials) <= most
    assert len({event["b64_json"] for event in events}) == len(events)
    for event in events:
        picture = Image.open(io.BytesIO(b64decode(event["b64_json"])))
        assert (picture.size, picture.format, event["output_format"]) == (SIZE, "WEBP", "webp")


@pytest.mark.parametrize("edit", [False, True])
def test_in_python(client: openai.OpenAI, edit: bool) -> None:
    kind = "image_edit" if edit else "image_generation"
    events = stream(client, edit, 2, **LONG)
    check([event.model_dump() for event in events], kind, 2)


@pytest.mark.parametrize("edit", [False, True])
def test_a_picture_as_quick_as_the_defaults_make_it(client: openai.OpenAI, edit: bool) -> None:
    """It takes some hundredths of a second: on a busy machine a preview may come too late."""
    events = until(lambda: found if len(found := stream(client, edit, 1)) > 1 else None, limit_s=30)
    check([event.model_dump() for event in events], "image_edit" if edit else "image_generation", 1)


def test_in_node(service: str, tmp_path: Path) -> None:
    installed(tmp_path, NPM_PACKAGE)
    node = shutil.which("node") or pytest.skip("there is no node")
    (tmp_path / "image.png").write_bytes(file_of(noise(32, 32)))
    (tmp_path / "mask.png").write_bytes(file_of(half_mask(32)))
    (tmp_path / "ask.mjs").write_text(SCRIPT)
    command = [node, str(tmp_path / "ask.mjs"), f"{service}/v1", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    events = json.loads(done.stdout)
    for kind in ("image_generation", "image_edit"):
        check([event for event in events if event["type"].startswith(kind)], kind, 2)
