"""What programs send that people put in front of image servers: each gets pictures, or is told which field is wrong.

Read in their sources in November 2026, and written down here in our own words:
- Open WebUI: backend/open_webui/routers/images.py, image_generations and image_edits; in a chat the pictures to edit
  always come as ``image[]``.
- LibreChat: api/app/clients/tools/structured/OpenAIImageTools.js, and the older DALLE3.js, which wants a style.
- SillyTavern: public/scripts/extensions/stable-diffusion/index.js. It asks api.openai.com only (its issues 4851, 5793);
  what reaches us comes through its extensions, which send the same.
"""

from typing import Any

import pytest
from gateway_harness import (  # noqa: F401  those in lower case are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
)
from openai_support import PROMPT, opened
from picture_files import file_of, noise

KEY = {"Authorization": "Bearer sk-none"}
PICTURE = ("picture.png", file_of(noise(64, 64)), "image/png")


def generations(gateway: RunningGateway, **asked: Any) -> Any:
    answer = gateway.http.post("/v1/images/generations", json={"prompt": PROMPT} | asked, headers=KEY)
    return answer.status_code, answer.json()


def edits(gateway: RunningGateway, pictures: int, **asked: str) -> Any:
    files = [("image[]", PICTURE)] * pictures
    answer = gateway.http.post("/v1/images/edits", data={"prompt": PROMPT} | asked, files=files, headers=KEY)
    return answer.status_code, answer.json()


OPEN_WEBUI: list[dict[str, Any]] = [
    {"model": "dall-e-2", "n": 1, "size": "512x512", "response_format": "b64_json"},
    {"model": "gpt-image-1", "n": 1, "size": "auto"},
    {"model": "gpt-image-1.5", "n": 2, "size": "1024x1024"},
]
LIBRECHAT = {"model": "gpt-image-1", "n": 1, "background": "auto", "output_format": "webp", "output_compression": 100}
SILLYTAVERN = {"model": "dall-e-2", "n": 1, "size": "512x512", "response_format": "b64_json"}
DALL_E_3 = {"model": "dall-e-3", "n": 1, "size": "1024x1024", "quality": "standard", "style": "vivid"}


@pytest.mark.parametrize("asked", [*OPEN_WEBUI, LIBRECHAT | {"quality": "auto", "size": "auto"}, SILLYTAVERN])
def test_pictures(gateway: RunningGateway, worker: TinyWorker, asked: dict[str, Any]) -> None:
    status, answer = generations(gateway, **asked)
    assert status == 200, answer
    sides = {8, 64} if asked["size"] == "auto" else {int(asked["size"].partition("x")[0])}  # the tiny worker draws 8
    assert len(answer["data"]) == asked["n"]
    assert {opened(picture["b64_json"]).width for picture in answer["data"]} <= sides


@pytest.mark.parametrize(
    ("asked", "param", "said"),
    [
        (DALL_E_3, "style", "nothing: say it in the prompt"),  # LibreChat's DALL·E tool, SillyTavern's default
        (DALL_E_3 | {"style": None, "quality": "hd"}, "quality", "there is one quality"),
        (OPEN_WEBUI[0] | {"size": "1536x1024"}, "size", "auto, 64x64, or a whole multiple"),
        (OPEN_WEBUI[0] | {"size": ""}, "size", "as WIDTHxHEIGHT"),
        (OPEN_WEBUI[0] | {"steps": 0}, "steps", "a whole number from 1 to 100"),
        (LIBRECHAT | {"background": "transparent"}, "background", "no picture has another"),
    ],
)
def test_what_cannot_be_done_is_named(
    gateway: RunningGateway, worker: TinyWorker, asked: dict[str, Any], param: str, said: str
) -> None:
    status, answer = generations(gateway, **asked)
    assert (status, answer["error"]["param"]) == (422, param)
    assert said in answer["error"]["message"]
    assert worker.taken == []


@pytest.mark.parametrize(
    "asked",
    [
        {"model": "", "response_format": "b64_json"},  # Open WebUI
        {"model": "gpt-image-1", "n": "1", "size": "512x512"},  # the same with more of its settings
        {"model": "gpt-image-1", "quality": "auto", "size": "auto"},  # LibreChat
    ],
)
def test_an_edit(gateway: RunningGateway, worker: TinyWorker, asked: dict[str, str]) -> None:
    status, answer = edits(gateway, 1, **asked)
    assert status == 200, answer
    assert opened(answer["data"][0]["b64_json"]).format == "PNG"


@pytest.mark.parametrize("pictures", [2, 16])
def test_an_edit_of_several_pictures(gateway: RunningGateway, worker: TinyWorker, pictures: int) -> None:
    """As many as OpenAI takes."""
    small = {"image[]": ("picture.png", file_of(noise(8, 8)), "image/png")}
    files = [*small.items()] * pictures
    answer = gateway.http.post("/v1/images/edits", data={"prompt": PROMPT}, files=files, headers=KEY)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (422, "image")
    assert error["message"].startswith("image: is given more than once (allowed: one picture")
    assert worker.taken == []
