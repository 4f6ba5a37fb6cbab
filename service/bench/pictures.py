"""The README's pictures, made by a running service: a contact sheet, and what s, r and z do."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from service.errors import Unavailable

CELL, MARGIN, LABEL = 96, 8, 18
PROMPTS = ("red apple", "grinning face", "blue heart", "pizza", "sun")
MORE_PROMPTS = (
    "cat face", "fire engine", "rainbow", "snowman", "green book",
    "banana", "butterfly", "hamburger", "key", "full moon",
    "tulip", "soccer ball", "mushroom", "umbrella", "watermelon",
)  # fmt: skip
EFFECTS: Mapping[str, tuple[str, Sequence[Mapping[str, object]]]] = {
    "guidance_scale": ("s", [{"guidance_scale": s} for s in (0, 1, 2, 3, 5, 10)]),
    "purity_r": ("r", [{"purity_r": r} for r in (0, 0.5, 1, 2, 5, 10)]),
    "tokens_per_step": ("z", [{"tokens_per_step": z, "steps": 1} for z in (64, 32, 16, 8, 4, 1)]),
}
"""Parameter → its letter, and the requests of one row of pictures."""


def ask(client: httpx.Client, fields: Mapping[str, object]) -> Image.Image:
    """One picture. Raises Unavailable with the problem's text when the service does not give one."""
    response = client.post("/generate", json=dict(fields), headers={"Accept": "image/png"})
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
            pen.text((left + CELL / 2, top + CELL), label, "black", font, anchor="ma")
    return page


def draw_pictures(url: str, out: Path, seed: int = 7) -> list[Path]:
    """Write ``contact.png`` and one ``effect-PARAMETER.png`` each into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    pages: dict[str, Image.Image] = {}
    with httpx.Client(base_url=url, timeout=120) as client, tqdm(desc="pictures", unit="sheet") as bar:
        prompts = PROMPTS + MORE_PROMPTS
        pictures = [(prompt, ask(client, {"prompt": prompt, "seed": seed})) for prompt in prompts]
        pages["contact"] = sheet([pictures[i : i + 5] for i in range(0, len(pictures), 5)])
        bar.update()
        for parameter, (letter, requests) in EFFECTS.items():
            rows = []
            for prompt in PROMPTS[:3]:
                asked = [{"prompt": prompt, "seed": seed, **request} for request in requests]
                rows.append([(f"{letter} = {fields[parameter]}", ask(client, fields)) for fields in asked])
            pages[f"effect-{parameter}"] = sheet(rows)
            bar.update()
    paths = [out / f"{name}.png" for name in pages]
    for path, page in zip(paths, pages.values(), strict=True):
        page.save(path, optimize=True)
    return paths
