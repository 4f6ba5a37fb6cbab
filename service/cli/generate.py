"""``vqd generate``."""

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.options import SERVICE, ApiKeyOption, given, settings_with
from service.client import Outcome, generate_with_bar
from service.diffusion.guidance_schedule import GUIDANCE_SCHEDULES
from service.diffusion.samplers import CHOICES, LIMITS, SAMPLERS
from service.messages import MAX_SEED, ImageFormat

app = typer.Typer()


def parameter(help: str, *names: str, default: str = "the model's") -> Any:
    """The option of a parameter that need not be given; the service knows its default."""
    return typer.Option(*names, help=help, show_default=default)


def between(name: str) -> str:
    low, high = LIMITS[name]
    return f"{low:g} to {high:g}"


Model = Annotated[str | None, parameter("Which of the served models draws.", default="the only one")]
Negative = Annotated[str | None, parameter("What the picture should not show.", default="nothing")]
Truncate = Annotated[
    bool, typer.Option("--truncate-prompt", help="Cut a prompt that is too long for the model, and say what was cut.")
]
Guidance = Annotated[
    float | None, parameter(f"s: how strongly the prompt steers, {between('guidance_scale')}; 1 is no guidance.")
]
Schedule = Annotated[str | None, parameter(f"How s changes in the course: {', '.join(GUIDANCE_SCHEDULES)}.")]
Masking = Annotated[
    str | None, parameter(f"For sampler md4, how fast it reveals: {', '.join(CHOICES['masking_schedule'])}.")
]
Label = Annotated[
    str | None, parameter("Number or name of the class, with a model that draws classes.", default="none")
]
Purity = Annotated[float | None, parameter(f"r: how much sure positions are sharpened, {between('purity_r')}.")]
TokensPerStep = Annotated[
    int | None, parameter("z: most tokens that one evaluation of the network fills in, from 1; more is faster.")
]
Steps = Annotated[int | None, parameter("Fewest evaluations of the network, from 1; fewer is faster.")]
SamplerName = Annotated[
    str | None, parameter("; ".join(f"{sampler.name} {sampler.text}" for sampler in SAMPLERS.values()) + ".")
]
Truncation = Annotated[
    float | None,
    parameter(f"Draw from the likeliest codes that have this mass, {between('truncation_rate')}; 1 is from all."),
]
Temperature = Annotated[
    float | None, parameter(f"Above 1 more varied, below 1 more of the likeliest, {between('temperature')}.")
]
Seed = Annotated[
    int | None, parameter(f"0 to {MAX_SEED}; the same seed makes the same picture.", default="drawn by the service")
]
Number = Annotated[int | None, parameter(f"How many pictures, {between('n')}.", "--n", "-n")]
ImageIndex = Annotated[
    int | None,
    parameter("Which picture of the seed, or with -n the first one: number 2 of -n 4 is --image-index 2.", default="0"),
]
Format = Annotated[str | None, parameter(f"One of {', '.join(ImageFormat)}.")]


@app.command()
def generate(  # noqa: PLR0913, PLR0917  typer makes one option of each
    prompt: Annotated[str | None, typer.Argument(help="What to draw, with a model that draws from text.")] = None,
    url: Annotated[str, typer.Option(help="Where the service is.")] = SERVICE,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("outputs"),
    model: Model = None,
    label: Label = None,
    negative_prompt: Negative = None,
    truncate_prompt: Truncate = False,
    guidance_scale: Guidance = None,
    guidance_schedule: Schedule = None,
    purity_r: Purity = None,
    tokens_per_step: TokensPerStep = None,
    steps: Steps = None,
    sampler: SamplerName = None,
    masking_schedule: Masking = None,
    truncation_rate: Truncation = None,
    temperature: Temperature = None,
    seed: Seed = None,
    n: Number = None,
    image_index: ImageIndex = None,
    format: Format = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Make pictures with a running service and save them.

    What is left out takes the served model's default.
    The ranges below are the usual ones: GET /v1/models shows each model's own.
    """
    began, settings = time.monotonic(), settings_with(api_key=api_key)
    fields = given(
        prompt=prompt,
        model=model,
        label=int(label) if label and label.isdecimal() else label,
        negative_prompt=negative_prompt,
        truncate_prompt=truncate_prompt or None,
        guidance_scale=guidance_scale,
        guidance_schedule=guidance_schedule,
        purity_r=purity_r,
        tokens_per_step=tokens_per_step,
        steps=steps,
        sampler=sampler,
        masking_schedule=masking_schedule,
        truncation_rate=truncation_rate,
        temperature=temperature,
        seed=seed,
        n=n,
        image_index=image_index,
        format=format,
    )
    show(generate_with_bar(url, fields, out, settings.api_key), time.monotonic() - began)


def show(outcome: Outcome, seconds: float) -> None:
    """A line per picture on stdout, which programs may read; warnings; for a person also how long it took."""
    for image in outcome.images:
        typer.echo(f"{image.path}  seed {image.seed}  tokens {image.tokens_sha256[:16]}")
    for warning in outcome.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if sys.stderr.isatty():
        count, evaluations = len(outcome.images), outcome.answer["evaluations"]
        made = "1 picture" if count == 1 else f"{count} pictures"
        typer.echo(f"{made} in {seconds:.1f} s: {evaluations} evaluations of the network", err=True)
