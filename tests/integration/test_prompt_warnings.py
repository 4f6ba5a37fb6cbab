"""What of a prompt is not drawn as it is written reaches whoever asked: gateway, worker and the fake of Triton."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from commands import vqd
from fleet import Fleet, serving
from gateway_harness import MODEL

APPLE = "prompt: the model does not know '🍎'; it was drawn as an unknown word"
LONG = "a " * MODEL.text_positions + "red circle"
CUT = "cut to 16 of its 18 tokens; not drawn: 'red circle'"


@pytest.fixture
def http(redis_url: str, tmp_path: Path) -> Iterator[httpx.Client]:
    fleet = Fleet(redis_url, tmp_path)
    fleet.start_worker()
    with serving(fleet) as client:
        yield client
    fleet.close()


def test_nothing_is_left_out_in_silence(http: httpx.Client, tmp_path: Path) -> None:
    def ask(accept: str = "*/*", **fields: object) -> httpx.Response:
        return http.post("/generate", json={"steps": 4, "seed": 1} | fields, headers={"Accept": accept})

    assert ask(prompt="a circle").json()["warnings"] == []

    answer = ask(prompt="a 🍎").json()
    assert (answer["status"], answer["warnings"]) == ("succeeded", [APPLE])
    assert http.get(f"/jobs/{answer['id']}").json()["warnings"] == [APPLE]
    assert json.loads(ask("image/*", prompt="a 🍎").headers["X-Vqd-Warnings"]) == [APPLE]
    assert "X-Vqd-Warnings" not in ask("image/*", prompt="a circle").headers

    refused = ask(prompt="🍎")
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "prompt")
    assert "knows nothing of it: '🍎'" in refused.json()["detail"]

    too_long = ask(prompt=LONG)
    assert (too_long.status_code, too_long.json()["errors"][0]["field"]) == (422, "prompt")
    assert "truncate_prompt" in too_long.json()["detail"]
    cut = ask(prompt=LONG, negative_prompt=LONG, truncate_prompt=True).json()
    assert cut["warnings"] == [f"prompt: {CUT}", f"negative_prompt: {CUT}"]

    command = ("generate", f"🍎 {LONG}", "--truncate-prompt", "--steps", "4", "--url", str(http.base_url))
    done = vqd(*command, cwd=tmp_path, PYTHONIOENCODING="utf-8")
    assert done.returncode == 0
    assert done.stderr.splitlines()[-2:] == [
        "warning: prompt: cut to 16 of its 19 tokens; not drawn: 'a red circle'",
        f"warning: {APPLE}",
    ]
    assert len(done.stdout.splitlines()) == 1
