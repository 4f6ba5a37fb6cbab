"""``vqd.json`` of a model folder: what diffusers has no field for."""

from typing import Any

from pydantic import Field

from service.messages import ImageFormat, PurityForm, Range, Record, Sampler

COMMON_RANGES = {
    "guidance_scale": (0.0, 20.0),
    "purity_r": (0.0, 10.0),
    "truncation_rate": (0.01, 1.0),
    "temperature": (0.05, 5.0),
    "n": (1, 16),
}
"""Ranges of the parameters that do not depend on the model's sizes."""


class TextSource(Record):
    """Where the text encoder and tokenizer are when the folder does not hold them: an installed Python package."""

    package: str
    path: str


class SamplingDefaults(Record):
    guidance_scale: float = 3.0
    purity_r: float = 1.0
    purity_form: PurityForm = PurityForm.LINEAR
    tokens_per_step: int | None = None
    """None: as many as 100 steps need."""
    steps: int = 1
    sampler: Sampler = Sampler.PURITY
    truncation_rate: float = 1.0
    temperature: float = 1.0
    final_resample: bool = True
    n: int = 1
    format: ImageFormat = ImageFormat.PNG


class Card(Record):
    """``vqd.json``."""

    name: str
    description: str = ""
    licence: str = "unknown"
    attributions: tuple[str, ...] = ()
    prompt_template: str = Field(default="{prompt}", pattern=r"\{prompt\}")
    text: TextSource | None = None
    text_positions: int | None = None
    """Length of a tokenised prompt; None: the tokenizer's own."""
    normalize_states: bool = True
    """Divide each text state by its norm, as VQ-Diffusion does with CLIP."""
    defaults: SamplingDefaults = SamplingDefaults()
    ranges: dict[str, Range] = Field(default_factory=dict)


def ranges_for(card: Card, tokens: int, timesteps: int) -> dict[str, Range]:
    """The range of every sampling parameter: the card's where it gives one."""
    sizes: dict[str, Any] = {**COMMON_RANGES, "tokens_per_step": (1, tokens), "steps": (1, timesteps)}
    return {name: card.ranges.get(name, Range(minimum=low, maximum=high)) for name, (low, high) in sizes.items()}
