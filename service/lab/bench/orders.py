"""In which order each sampler's tokens appear, as pictures: bright positions came first, dark ones last."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from service.diffusion.samplers import SAMPLERS
from service.lab.bench.bare import Bare
from service.lab.bench.pictures import sheet
from service.triton.contract import Int32

PROMPT, SEED, STEPS = "red apple", 7, 8


def appearance(bare: Bare, sampler: str) -> tuple[Int32, int, Image.Image]:
    """The evaluation [L] after which each position first had a code, how many evaluations there were, the picture."""
    fields = {"prompt": PROMPT, "seed": SEED, "sampler": sampler, "steps": STEPS}
    if "tokens_per_step" not in SAMPLERS[sampler].refuses:
        fields["tokens_per_step"] = bare.info.tokens // STEPS
    (row,) = bare.begin([fields])
    first = np.full(bare.info.tokens, len(row.plan), np.int32)
    while row.remaining:
        bare.advance([row], 1)
        shown = row.tokens != bare.info.codes
        first = np.where(shown, np.minimum(first, row.evaluation - 1), first).astype(np.int32)
    return first, len(row.plan), Image.fromarray(bare.decode([row])[0])


def as_picture(first: Int32, evaluations: int) -> Image.Image:
    side = int(len(first) ** 0.5)
    shade = 255 - first.reshape(side, side) * (215 / max(evaluations - 1, 1))
    return Image.fromarray(shade.astype(np.uint8)).resize((96, 96), Image.Resampling.NEAREST).convert("RGB")


def draw_orders(repository: Path, out: Path, samplers: Sequence[str] = tuple(SAMPLERS)) -> Path:
    """Write ``orders.png`` into ``out``: each sampler's order above the picture that it gave."""
    bare = Bare(repository)
    seen = [appearance(bare, sampler) for sampler in samplers]
    orders = [(sampler, as_picture(first, n)) for sampler, (first, n, _) in zip(samplers, seen, strict=True)]
    pictures = [(f"{n} evaluations", picture) for _, n, picture in seen]
    path = out / "orders.png"
    sheet([orders, pictures]).save(path, optimize=True)
    return path
