"""Requests at random, all of which are valid for a model of the tests."""

import random
from typing import Any

from service.condition import Condition
from service.diffusion.guidance_schedule import GUIDANCE_SCHEDULES
from service.diffusion.samplers import SAMPLERS
from service.messages import MAX_SEED, ImageFormat
from service.serving import ModelInfo

WORDS = ("red", "circle", "Äpfel", "苹果", "🍎", "सेब", "تفاحة", "a\nb", '"\\', "<b>&amp;</b>", "\u202eabc")


def some_fields(rng: random.Random, fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if rng.random() < 0.5}


def random_request(rng: random.Random, model: ModelInfo) -> dict[str, Any]:
    """What the model draws from, and about half of all that it takes."""
    name = rng.choice([None, *model.samplers])
    sampler = SAMPLERS[name or model.defaults.sampler]
    text = " ".join(rng.choices(WORDS, k=rng.randint(1, 8)))
    fields: dict[str, Any] = {
        "seed": rng.choice([0, 7, MAX_SEED]),
        "n": rng.randint(1, 4),
        "image_index": rng.choice([0, 1, 5, 2**31 - 4]),
        "steps": rng.randint(1, model.tokens),
        "truncation_rate": rng.uniform(0.01, 1),
        "temperature": rng.uniform(0.05, 5),
        "format": rng.choice([*ImageFormat]).value,
        "metadata": rng.choice([True, False]),
        "priority": rng.choice(["interactive", "batch"]),
        "deadline_s": 600.5,
    }
    fields |= {name: rng.choice(names) for name, names in sampler.choices.items()}
    fields |= {name: rng.choice([True, False]) for name in sampler.switches}
    if "purity_r" in sampler.fields:
        fields["purity_r"] = rng.uniform(0, 10)
    if "tokens_per_step" in sampler.fields:
        fields["tokens_per_step"] = rng.randint(1, model.tokens)
    if model.guidance:
        fields |= {"guidance_scale": rng.uniform(0, 20), "guidance_schedule": rng.choice([*GUIDANCE_SCHEDULES])}
    chosen = some_fields(rng, fields)
    if model.guidance and model.condition is Condition.TEXT:
        chosen |= some_fields(rng, {"negative_prompt": text[::-1].replace("\u202e", "")})
    if model.condition is Condition.TEXT:
        chosen["prompt"] = text
    elif model.condition is Condition.LABEL:
        chosen["label"] = rng.choice([0, "dog"])
    return chosen if name is None else {**chosen, "sampler": name}
