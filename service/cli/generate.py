"""``vqd generate``."""

import inspect
import math
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from service.cli.options import SERVICE, ApiKeyOption, given, option, settings_with
from service.client.blocking.client import Client
from service.client.fields import label_from
from service.client.saving import Outcome, generate_with_bar
from service.diffusion.guidance_schedule import GUIDANCE_SCHEDULES
from service.diffusion.samplers import CHOICES, LIMITS, SAMPLERS
from service.errors import InvalidRequest
from service.folders import require_writable, unwritable
from service.grid import FIELDS as SWEPT
from service.grid import SHORT, Axis, draw_grid, read_axes
from service.messages import MAX_SEED, ImageFormat
from service.provenance.names import slug, write_new

app = typer.Typer()


def parameter(help: str, *names: str, default: str = "the model's", metavar: str | None = None) -> Any:
    """The option of a parameter that need not be given; the service knows its default."""
    return typer.Option(*names, help=help, show_default=default, metavar=metavar)


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
Picture = Annotated[
    Path | None, parameter("A picture to begin with: PNG, JPEG or WebP; - reads stdin.", metavar="FILE", default="none")
]
Mask = Annotated[
    Path | None,
    parameter("White, or transparent, where --image may change; as large.", metavar="FILE", default="all may"),
]
Strength = Annotated[
    float | None,
    parameter("The share of what may change that is drawn anew, 0 to 1.", default="1 with a mask, 0.7 without"),
]
Composite = Annotated[
    bool | None,
    parameter("Whether what --mask keeps is exactly as it was.", "--composite/--no-composite", default="it is"),
]


FIELDS: dict[str, Any] = {
    "model": Model,
    "label": Label,
    "negative_prompt": Negative,
    "truncate_prompt": Truncate,
    "guidance_scale": Guidance,
    "guidance_schedule": Schedule,
    "purity_r": Purity,
    "tokens_per_step": TokensPerStep,
    "steps": Steps,
    "sampler": SamplerName,
    "masking_schedule": Masking,
    "truncation_rate": Truncation,
    "temperature": Temperature,
    "seed": Seed,
    "n": Number,
    "image_index": ImageIndex,
    "format": Format,
    "image": Picture,
    "mask": Mask,
    "strength": Strength,
    "composite": Composite,
}
"""Request field → its option."""
FIELD = rf"\b({'|'.join(field for field in FIELDS if '_' in field)})\b"
STDIN = Path("-")
Grid = Annotated[
    str | None,
    typer.Option(
        metavar="'s=1,2,3 r=0,1'",
        help="Save one labelled sheet, with a picture for each value: the first parameter across, a second one down. "
        f"Of {', '.join((*SHORT, *SWEPT))}.",
    ),
]


def with_fields(command: Callable[..., None]) -> Callable[..., None]:
    """``command``, to which typer gives an option for each of FIELDS, in place of its ``**fields``."""
    own = inspect.signature(command)
    kept = [parameter for parameter in own.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in FIELDS.items()
    ]
    command.__signature__ = own.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
    command.__annotations__ |= FIELDS
    return command


Preview = Annotated[
    bool,
    typer.Option(
        "--preview",
        help="While it runs, keep the picture so far in a file beside the one to come, such as "
        "red-apple-7-0.preview.png. It is gone when the job is over; a quick one may never have any.",
    ),
]


@app.command()
@with_fields
def generate(
    prompt: Annotated[str | None, typer.Argument(help="What to draw, with a model that draws from text.")] = None,
    url: Annotated[str, typer.Option(help="Where the service is.")] = SERVICE,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("outputs"),
    grid: Grid = None,
    preview: Preview = False,
    api_key: ApiKeyOption = None,
    **fields: Any,
) -> None:
    """Make pictures with a running service and save them.

    What is left out takes the served model's default.
    The ranges below are the usual ones: GET /v1/models shows each model's own.
    """
    began, settings = time.monotonic(), settings_with(api_key=api_key)
    wanted = given(prompt=prompt, **fields)
    if "label" in wanted:
        wanted["label"] = label_from(wanted["label"])
    if wanted.get("image") == STDIN:
        wanted["image"] = sys.stdin.buffer.read()
    if grid and preview:
        raise InvalidRequest("--preview", "shows pictures that come one by one, not a --grid")
    with named_as_options(wanted):
        if grid is None:
            show(generate_with_bar(url, wanted, out, settings.api_key, preview), time.monotonic() - began)
        else:
            typer.echo(save_grid(url, wanted, axes_beside(wanted, grid), out, settings.api_key))


@contextmanager
def named_as_options(given: Collection[str]) -> Iterator[None]:
    """A field that was given as an option is named as that, and so is one that would help."""
    try:
        yield
    except InvalidRequest as error:
        field = option(error.field) if error.field in FIELDS and error.field in given else error.field
        raise InvalidRequest(field, re.sub(FIELD, lambda found: option(found[0]), error.message)) from None


def axes_beside(given: Collection[str], grid: str) -> list[Axis]:
    """Raises InvalidRequest for an option that the sheet would leave without effect."""
    axes = read_axes(grid)
    for field in ("n", "format", *(axis.field for axis in axes)):
        if field in given:
            why = "a sheet is one PNG with a picture for each value" if field in ("n", "format") else "--grid sets it"
            raise InvalidRequest(option(field), f"has no effect: {why}; leave it out")
    return axes


def save_grid(url: str, fields: Mapping[str, Any], axes: Sequence[Axis], folder: Path, api_key: str) -> Path:
    """Where the sheet is."""
    require_writable(folder)
    count = math.prod(len(axis.values) for axis in axes)
    with Client(url, api_key) as client, tqdm(total=count, desc="pictures", leave=False, disable=None) as bar:
        sheet = draw_grid(client, fields, axes, bar.update)
    what = slug(str(fields.get("prompt") or fields.get("label") or "")) or "sheet"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return write_new(folder, f"{what}-grid.png", sheet)
    except OSError as error:
        raise unwritable(folder, error) from None


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
