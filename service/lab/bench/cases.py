"""What the benchmarks ask for: bodies of ``POST /generate``, the same for the service and for the modules alone."""

import random
from collections.abc import Sequence
from typing import Any, TypeAlias

from service.diffusion.samplers import SAMPLERS

Fields: TypeAlias = dict[str, Any]

PROMPTS = (
    "red apple", "grinning face", "blue heart", "pizza", "sun", "cat face", "fire engine", "rainbow",
    "snowman", "green book", "banana", "butterfly", "hamburger", "key", "full moon", "tulip",
)  # fmt: skip


def plain(count: int, first: int = 0) -> list[Fields]:
    """Requests with the model's defaults, but guided throughout as diffusers does; each has its own prompt and seed."""
    requests = range(first, first + count)
    return [{"prompt": PROMPTS[i % len(PROMPTS)], "seed": i, "guidance_schedule": "constant"} for i in requests]


def mixed(count: int, seed: int = 0) -> list[Fields]:
    """Every other request with the model's defaults, the rest with parameters drawn at random."""
    choose = random.Random(seed)
    return [fields | (drawn(choose) if i % 2 else {}) for i, fields in enumerate(plain(count))]


def drawn(choose: random.Random) -> Fields:
    fields: Fields = {
        "guidance_scale": choose.choice((1.0, 1.5, 3.0, 5.0)),
        "purity_r": choose.choice((0.0, 1.0, 3.0)),
        "steps": choose.randint(8, 24),
        "sampler": choose.choice(tuple(SAMPLERS)),
        "truncation_rate": choose.choice((0.86, 1.0)),
        "temperature": choose.choice((0.8, 1.0)),
    }
    if "tokens_per_step" not in SAMPLERS[fields["sampler"]].refuses:
        fields["tokens_per_step"] = choose.choice((4, 8))
    if choose.random() < 0.25:
        fields["negative_prompt"] = choose.choice(PROMPTS)
    return fields


def shuffled(items: Sequence[int], seed: int) -> list[int]:
    return random.Random(seed).sample(items, len(items))
