"""A sheet of inpaintings by a running service: a picture, the part that is drawn anew, and what comes of it."""

import io
import textwrap
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
from PIL import Image
from tqdm import tqdm

from service.client.address import authorization, heeds_proxies
from service.errors import InferenceFailed, Unavailable
from service.lab.bench.pictures import sheet

SEED = 7


class Case(NamedTuple):
    """``prompt`` makes a picture; where ``part`` is true of (x, y) from 0 to 1, ``anew`` is drawn into it."""

    prompt: str
    part: Callable[[Any, Any], Any]
    anew: str
    words: str


CASES = (
    Case("red apple", lambda x, y: x >= 0.5, "green apple", "right half"),
    Case("red heart", lambda x, y: x >= 0.5, "blue heart", "right half"),
    Case("grinning face", lambda x, y: y >= 0.5, "crying face", "lower half"),
    Case("grinning face", lambda x, y: y < 0.5, "smiling face with sunglasses", "upper half"),
    Case("orange circle", lambda x, y: np.hypot(x - 0.5, y - 0.5) < 0.25, "blue circle", "disc"),
    Case("sun with face", lambda x, y: np.hypot(x - 0.5, y - 0.5) >= 0.3, "lion", "all around"),
    Case("dog face", lambda x, y: x < 0.5, "cat face", "left half"),
    Case("sunflower", lambda x, y: y < 0.5, "rose", "upper half"),
    Case("pizza", lambda x, y: (x >= 0.5) & (y >= 0.5), "pizza", "quarter"),
    Case("full moon", lambda x, y: abs(x - y) < 0.25, "sun", "diagonal"),
)


def draw(client: httpx.Client, fields: Mapping[str, object]) -> Image.Image:
    """Raises Unavailable with the problem's text when the service gives no picture."""
    response = client.post("/generate", json={"seed": SEED, **fields}, headers={"Accept": "image/png"})
    if response.status_code != httpx.codes.OK:
        raise Unavailable(f"{client.base_url}: {response.text}")
    return Image.open(io.BytesIO(response.content)).convert("RGB")


def base64(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return b64encode(buffer.getvalue()).decode()


def cells(client: httpx.Client, case: Case) -> list[tuple[str, Image.Image]]:
    """Labels and pictures: before, the part in grey, after. Raises InferenceFailed when any other pixel has changed."""
    before = draw(client, {"prompt": case.prompt})
    y, x = (np.indices(before.size[::-1]) + 0.5) / before.width
    part = case.part(x, y)
    asked = {"prompt": case.anew, "image": base64(before), "mask": base64(Image.fromarray(part))}
    after = draw(client, asked)
    if (np.asarray(before) != np.asarray(after))[~part].any():
        raise InferenceFailed(f"{case.prompt}: a pixel that the mask keeps has changed")
    shown = Image.fromarray(np.where(part[..., None], 160, np.asarray(before)).astype(np.uint8))
    return [(case.prompt, before), (case.words, shown), ("\n".join(textwrap.wrap(case.anew, 18)), after)]


def draw_inpaintings(url: str, path: Path, api_key: str = "") -> None:
    """One sheet with all CASES."""
    headers, proxies = authorization(api_key), heeds_proxies(url)
    with httpx.Client(base_url=url, headers=headers, timeout=120, trust_env=proxies) as client:
        rows = [cells(client, case) for case in tqdm(CASES, unit="picture")]
    page = sheet([left + right for left, right in zip(rows[::2], rows[1::2], strict=True)])
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, optimize=True)
