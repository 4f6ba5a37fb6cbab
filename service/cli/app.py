"""The ``vqd`` command. Each command calls one function elsewhere."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

from service.client import Outcome, generate_with_bar
from service.errors import SetupError, VqdError
from service.lab.bench.load import load_test
from service.lab.bench.pictures import draw_pictures
from service.models.card import REFERENCE
from service.settings import Settings, read_settings
from service.telemetry.logs import set_up_logging

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
train_app = typer.Typer(no_args_is_help=True, help="Train the bundled model from the emoji packages.")
app.add_typer(train_app, name="train")
bench_app = typer.Typer(no_args_is_help=True, help="Measure speed, memory and reproducibility.")
app.add_typer(bench_app, name="bench")

ModelOption = Annotated[Path, typer.Option("--model", help="Model folder (diffusers VQDiffusionPipeline layout).")]
RepositoryOption = Annotated[Path | None, typer.Option("--repository", help="Triton model repository.")]
WorkOption = Annotated[Path, typer.Option("--work", help="Folder for data, checkpoints and curves.")]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Default: the shipped model's.")]
SmokeOption = Annotated[bool, typer.Option("--smoke", help="A few steps in the folder 'smoke', to see that it runs.")]
SMOKE_STEPS = 3
ReportOption = Annotated[Path, typer.Option("--out", help="JSON file to write.")]


def optional(module: str, extra: str) -> Any:
    """A module that needs the packages of an extra, which gateway and worker images do not have."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("service"):
            raise
        raise SetupError(f"the package {error.name!r} is missing: pip install 'vqd[{extra}]'") from None


@app.command()
def gateway() -> None:
    """Run the HTTP gateway; settings come from VQD_ variables."""
    optional("service.gateway.app", "gateway").run(read_settings())


@app.command()
def worker() -> None:
    """Run a worker; settings come from VQD_ variables."""
    optional("service.worker.main", "worker").run(read_settings())


@app.command()
def up(
    once: Annotated[str | None, typer.Option(help="Make one picture of this prompt, then stop.")] = None,
    first: Annotated[str | None, typer.Option(help="Make one picture of this prompt, then keep serving.")] = None,
    model: ModelOption = REFERENCE,
    repository: RepositoryOption = None,
    port: Annotated[int | None, typer.Option(help="Port of the gateway; 0 picks a free one.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for pictures and logs.")] = Path("outputs"),
) -> None:
    """Start Redis, Triton, a worker and the gateway on this machine, and keep them alive until Ctrl-C."""
    settings = for_people(settings_with(repository=repository, port=port))
    set_up_logging("WARNING", settings.log_format)
    optional("service.local.up", "local").up(settings, model, out, once, first)


@app.command(name="generate")
def generate_command(  # noqa: PLR0913, PLR0917  typer makes one option of each
    prompt: str,
    url: Annotated[str, typer.Option(help="Where the service is.")] = "http://127.0.0.1:8080",
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("outputs"),
    model: Annotated[str | None, typer.Option(help="Which model; default: the only one.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What the picture should not show.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="s: how strongly the prompt steers.")] = None,
    purity_r: Annotated[float | None, typer.Option(help="r: how much sure positions are sharpened.")] = None,
    tokens_per_step: Annotated[int | None, typer.Option(help="z: most tokens committed per evaluation.")] = None,
    steps: Annotated[int | None, typer.Option(help="Least number of evaluations.")] = None,
    sampler: Annotated[str | None, typer.Option(help="purity, uniform or ancestral.")] = None,
    truncation_rate: Annotated[float | None, typer.Option(help="Keep the codes that reach this mass.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same picture; default: random.")] = None,
    n: Annotated[int | None, typer.Option(help="How many pictures.")] = None,
    format: Annotated[str | None, typer.Option(help="png, jpeg or webp.")] = None,
) -> None:
    """Make pictures with a running service and save them."""
    fields = given(**locals())
    show(generate_with_bar(fields.pop("url"), fields, fields.pop("out")))


def show(outcome: Outcome) -> None:
    for image in outcome.images:
        typer.echo(f"{image.path}  seed {image.seed}  tokens {image.tokens_sha256[:16]}")


@app.command()
def export(
    model: ModelOption = REFERENCE,
    repository: RepositoryOption = None,
    backend: Annotated[str, typer.Option(help="python or pytorch.")] = "python",
    max_batch: Annotated[int, typer.Option(min=1, max=1024, help="Most rows in one call.")] = 16,
) -> None:
    """Turn a model folder into a Triton model repository."""
    settings = settings_with(repository=repository)
    info = optional("service.export.build", "export").export_model(model, settings.repository, backend, max_batch)
    typer.echo(f"{settings.repository}: {info.name} {info.sha256[:16]}, backend {backend}")


@app.command()
def doctor(model: ModelOption = REFERENCE, repository: RepositoryOption = None) -> None:
    """Check this installation and say in plain words what is missing."""
    findings = optional("service.local.doctor", "local").examine(settings_with(repository=repository), model)
    for finding in findings:
        typer.echo(finding)
    raise typer.Exit(0 if all(finding.good for finding in findings) else 1)


@train_app.command()
def data(
    work: WorkOption = Path("outputs/train"),
    packages: Annotated[Path, typer.Option(help="Where the npm packages are or go.")] = Path("outputs/packages"),
    every: Annotated[int, typer.Option(min=1, help="Keep one emoji in so many, for a quick trial.")] = 1,
) -> None:
    """Fetch the emoji packages; write pictures, captions and text states."""
    typer.echo(optional("service.lab.training.data", "train").prepare_data(work / "data", packages, every))


@train_app.command()
def codec(work: WorkOption = Path("outputs/train"), steps: StepsOption = None, smoke: SmokeOption = False) -> None:
    """Train the VQ codec; resumes from its checkpoint."""
    training = optional("service.lab.training.codec", "train")
    run = course(work, steps, smoke)
    typer.echo(training.train_codec(work / "data", run.work, training.CodecRecipe(**run.recipe)))


@train_app.command()
def diffusion(
    work: WorkOption = Path("outputs/train"),
    steps: StepsOption = None,
    smoke: SmokeOption = False,
    loss: Annotated[
        Literal["simplified", "full"],
        typer.Option(help="Cross-entropy of x_0 alone, as in the shipped model, or VQ-Diffusion's variational bound."),
    ] = "simplified",
) -> None:
    """Train the transformer on the codec's tokens; resumes from its checkpoint."""
    training = optional("service.lab.training.diffusion", "train")
    run = course(work, steps, smoke)
    typer.echo(training.train_diffusion(work / "data", run.work, training.DiffusionRecipe(loss=loss, **run.recipe)))


@train_app.command()
def null(work: WorkOption = Path("outputs/train"), steps: StepsOption = None, smoke: SmokeOption = False) -> None:
    """Learn null text states on the finished transformer (learnable guidance); resumes from its checkpoint."""
    training = optional("service.lab.training.null", "train")
    run = course(work, steps, smoke)
    typer.echo(training.train_null(work / "data", run.work, training.NullRecipe(**run.recipe)))


@train_app.command()
def judge(work: WorkOption = Path("outputs/train"), steps: StepsOption = None, smoke: SmokeOption = False) -> None:
    """Train the judge of `vqd evaluate`; resumes from its checkpoint."""
    training = optional("service.lab.evaluation.features", "train")
    run = course(work, steps, smoke)
    typer.echo(training.train_features(work / "data", run.work, training.FeaturesRecipe(**run.recipe)))


@train_app.command()
def plot(work: WorkOption = Path("outputs/train")) -> None:
    """Draw the curves of every training in the folder."""
    for path in optional("service.lab.training.plot", "train").plot_curves(work):
        typer.echo(path)


@train_app.command()
def assemble(
    work: WorkOption = Path("outputs/train"),
    to: Annotated[Path, typer.Option(help="Model folder to write.")] = Path("outputs/model"),
) -> None:
    """Join the trained weights into a model folder that `vqd export` and diffusers read."""
    typer.echo(optional("service.lab.training.assemble", "train").assemble(work, to))


@app.command()
def evaluate(
    model: ModelOption = REFERENCE,
    work: WorkOption = Path("outputs/train"),
    out: Annotated[Path, typer.Option(help="JSON lines to write and to go on from; tables go into the .md beside.")] = (
        Path("outputs/quality.jsonl")
    ),
    quick: Annotated[bool, typer.Option("--quick", help="Guidance scales only, with few prompts: minutes.")] = False,
    tables: Annotated[bool, typer.Option("--tables", help="Only write the tables of what was measured.")] = False,
    inception: Annotated[Path | None, typer.Option(help="TorchScript Inception: adds a real FID.")] = None,
) -> None:
    """Measure quality: what s, r, z and the samplers do. Needs `vqd train data`; goes on where it was interrupted."""
    evaluation = optional("service.lab.evaluation.run", "train")
    for line in evaluation.run_evaluation(model, work, out, quick, tables, inception):
        typer.echo(line)


@bench_app.command()
def bounds(
    out: ReportOption = Path("outputs/bench/bounds.json"),
    model: ModelOption = REFERENCE,
    rounds: Annotated[int, typer.Option(min=1, help="Side-by-side rounds; other counts follow.")] = 5,
    grids: Annotated[int, typer.Option(min=1, help="Grids for the flip rate.")] = 500,
) -> None:
    """Start a service of its own, measure every promised figure in one run, and hold it against its bound."""
    bench = optional("service.lab.bench.bounds", "test")
    typer.echo(bench.measure_bounds(model, bench.Effort(rounds, grids)).published(out))


@bench_app.command()
def flips(
    out: ReportOption = Path("outputs/bench/flips.json"),
    model: ModelOption = REFERENCE,
    grids: Annotated[int, typer.Option(min=1, help="How many grids are made alone and again in batches.")] = 500,
) -> None:
    """Count the pictures that change when others share their batch."""
    typer.echo(optional("service.lab.bench.bounds", "test").measure_flips(model, grids).published(out))


@bench_app.command()
def load(
    url: str,
    requests: Annotated[int, typer.Option(min=1, help="How many in all.")] = 100,
    concurrency: Annotated[int, typer.Option(min=1, help="Most at the same time.")] = 8,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Requests per second; default: as they finish.")] = None,
) -> None:
    """Press a running service: latencies, pictures per second, errors."""
    typer.echo(load_test(url, requests, concurrency, rate))


@bench_app.command()
def pictures(
    url: Annotated[str, typer.Argument(help="Where the service is.")] = "http://127.0.0.1:8080",
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("docs"),
    work: WorkOption = Path("outputs/train"),
) -> None:
    """Draw the README's pictures with a running service: a contact sheet, and what s, r and z do."""
    for path in draw_pictures(url, out, work / "data"):
        typer.echo(path)


class Course(NamedTuple):
    work: Path
    recipe: dict[str, Any]


def course(work: Path, steps: int | None, smoke: bool) -> Course:
    """Where a training goes and what of its recipe is changed."""
    return Course(work / "smoke", {"steps": SMOKE_STEPS}) if smoke else Course(work, given(steps=steps))


def given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def settings_with(**options: Any) -> Settings:
    return read_settings(**given(**options))


def for_people(settings: Settings) -> Settings:
    """Text logs unless told otherwise."""
    return settings if "log_format" in settings.model_fields_set else settings.model_copy(update={"log_format": "text"})


def main() -> None:
    """Entry point: our own errors are one line on stderr and status 1, an interrupt is status 130."""
    try:
        app()
    except VqdError as error:
        typer.echo(f"vqd: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
