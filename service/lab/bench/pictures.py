"""The README's pictures, made by a running service: a contact sheet, and what s, r and z do."""

import io
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from service.client.address import authorization, heeds_proxies
from service.errors import SetupError, Unavailable

CELL, MARGIN, LABEL = 96, 12, 32
PROMPTS = ("red apple", "grinning face", "blue heart")
NAMEABLE = ("Activities", "Animals & Nature", "Food & Drink", "Objects", "Travel & Places")
"""Categories of things that a person can name; the others are faces, gestures and signs."""
SEEN, HELD_OUT, ACROSS = 48, 16, 8
AS_DRAWN: Mapping[str, object] = {"guidance_schedule": "constant", "steps": 16, "tokens_per_step": 4}
"""What the pictures were drawn and judged with, whatever the model's defaults are."""
EFFECTS: Mapping[str, tuple[str, Sequence[Mapping[str, object]]]] = {
    "guidance_scale": ("s", [{"guidance_scale": s} for s in (0, 1, 2, 3, 5, 10)]),
    "purity_r": ("r", [{"purity_r": r} for r in (0, 0.5, 1, 2, 5, 10)]),
    "tokens_per_step": ("z", [{"tokens_per_step": z, "steps": 1} for z in (64, 32, 16, 8, 4, 1)]),
}
"""Parameter → its letter, and the requests of one row of pictures."""


def sheet_prompts(data: Path) -> list[str]:
    """The contact sheet's: SEEN and then HELD_OUT pictures of NAMEABLE categories by a fixed shuffle, nothing else.

    Each is the plain name with the style. ``data`` is the folder of `vqd train data`; SetupError without it.
    """
    if not (data / "pictures.npz").exists():
        raise SetupError(f"{data} holds no pictures: run `vqd train data` first")
    pictures, captions = np.load(data / "pictures.npz"), json.loads((data / "captions.json").read_bytes())
    nameable, held_out = np.isin(pictures["categories"], NAMEABLE), pictures["held_out"]
    shuffle = np.random.default_rng(0).permutation(len(held_out))
    chosen = [place for place in shuffle if nameable[place] and not held_out[place]][:SEEN]
    chosen += [place for place in shuffle if nameable[place] and held_out[place]][:HELD_OUT]
    return [captions[pictures["captions"][place, 0, 1]] for place in chosen]


def ask(client: httpx.Client, fields: Mapping[str, object]) -> Image.Image:
    """One picture with AS_DRAWN. Raises Unavailable with the problem's text when the service does not give one."""
    wanted = {**AS_DRAWN, **fields}
    response = client.post("/generate", json=wanted, headers={"Accept": "image/png"})
    if response.status_code != httpx.codes.OK:
        raise Unavailable(f"{client.base_url}: {response.text}")
    return Image.open(io.BytesIO(response.content)).convert("RGB")


def sheet(cells: Sequence[Sequence[tuple[str, Image.Image]]]) -> Image.Image:
    """Rows of labelled pictures on white."""
    width = max(len(row) for row in cells) * (CELL + MARGIN) + MARGIN
    page = Image.new("RGB", (width, len(cells) * (CELL + LABEL + MARGIN) + MARGIN), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for y, row in enumerate(cells):
        for x, (label, picture) in enumerate(row):
            left, top = MARGIN + x * (CELL + MARGIN), MARGIN + y * (CELL + LABEL + MARGIN)
            page.paste(picture.resize((CELL, CELL), Image.Resampling.BICUBIC), (left, top))
            pen.multiline_text((left + CELL / 2, top + CELL), label, "black", font, anchor="ma", align="center")
    return page


def short(prompt: str) -> str:
    """A prompt as a label of two lines: the name without its style."""
    return "\n".join(textwrap.wrap(prompt.rpartition(",")[0], 18)[:2])


def draw_pictures(url: str, out: Path, data: Path, seed: int = 7, api_key: str = "") -> list[Path]:
    """Write ``contact.png``, ``blind.png`` (numbers for labels) and one ``effect-PARAMETER.png`` each into ``out``."""
    prompts = sheet_prompts(data)
    out.mkdir(parents=True, exist_ok=True)
    pages: dict[str, Image.Image] = {}
    with (
        httpx.Client(base_url=url, headers=authorization(api_key), timeout=120, trust_env=heeds_proxies(url)) as client,
        tqdm(desc="pictures", unit="sheet") as bar,
    ):
        drawn = [ask(client, {"prompt": prompt, "seed": seed}) for prompt in prompts]
        for name, labels in (("contact", map(short, prompts)), ("blind", map(str, range(1, len(drawn) + 1)))):
            cells = list(zip(labels, drawn, strict=True))
            pages[name] = sheet([cells[i : i + ACROSS] for i in range(0, len(cells), ACROSS)])
            bar.update()
        for parameter, (letter, requests) in EFFECTS.items():
            rows = []
            for prompt in PROMPTS:
                asked = [{"prompt": prompt, "seed": seed, **request} for request in requests]
                rows.append([(f"{letter} = {fields[parameter]}", ask(client, fields)) for fields in asked])
            pages[f"effect-{parameter}"] = sheet(rows)
            bar.update()
    paths = [out / f"{name}.png" for name in pages]
    for path, page in zip(paths, pages.values(), strict=True):
        page.save(path, optimize=True)
    return paths
