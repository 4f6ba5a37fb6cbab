"""``vqd train``: the commands that made the bundled model."""

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

from service.cli.options import WorkOption, given
from service.lab.evaluation.features import FeaturesRecipe, train_features
from service.lab.training.assemble import assemble as join_weights
from service.lab.training.codec import CodecRecipe, train_codec
from service.lab.training.data import prepare_data
from service.lab.training.diffusion import DiffusionRecipe, train_diffusion
from service.lab.training.null import NullRecipe, train_null
from service.lab.training.plot import plot_curves

app = typer.Typer(no_args_is_help=True, help="Train the bundled model from the emoji packages.")

WORK = Path("outputs/train")
SMOKE_STEPS = 3
StepsOption = Annotated[
    int | None, typer.Option(min=1, show_default="the bundled model's", help="Steps of the optimiser in all.")
]
SmokeOption = Annotated[
    bool, typer.Option("--smoke", help=f"{SMOKE_STEPS} steps in the folder 'smoke', to see that it runs.")
]


class Course(NamedTuple):
    work: Path
    recipe: dict[str, Any]


def course(work: Path, steps: int | None, smoke: bool) -> Course:
    """Where a training goes and what of its recipe is changed."""
    return Course(work / "smoke", {"steps": SMOKE_STEPS}) if smoke else Course(work, given(steps=steps))


@app.command()
def data(
    work: WorkOption = WORK,
    packages: Annotated[Path, typer.Option(help="Where the npm packages are or go.")] = Path("outputs/packages"),
    every: Annotated[int, typer.Option(min=1, help="Keep one emoji in so many, for a quick trial.")] = 1,
) -> None:
    """Fetch the emoji packages; write pictures, captions and text states."""
    typer.echo(prepare_data(work / "data", packages, every))


@app.command()
def codec(work: WorkOption = WORK, steps: StepsOption = None, smoke: SmokeOption = False) -> None:
    """Train the VQ codec; resumes from its checkpoint."""
    run = course(work, steps, smoke)
    typer.echo(train_codec(work / "data", run.work, CodecRecipe(**run.recipe)))


@app.command()
def diffusion(
    work: WorkOption = WORK,
    steps: StepsOption = None,
    smoke: SmokeOption = False,
    loss: Annotated[
        Literal["simplified", "full"],
        typer.Option(help="Cross-entropy of x_0 alone, as in the shipped model, or VQ-Diffusion's variational bound."),
    ] = "simplified",
) -> None:
    """Train the transformer on the codec's tokens; resumes from its checkpoint."""
    run = course(work, steps, smoke)
    typer.echo(train_diffusion(work / "data", run.work, DiffusionRecipe(loss=loss, **run.recipe)))


@app.command()
def null(work: WorkOption = WORK, steps: StepsOption = None, smoke: SmokeOption = False) -> None:
    """Learn null text states on the finished transformer (learnable guidance); resumes from its checkpoint."""
    run = course(work, steps, smoke)
    typer.echo(train_null(work / "data", run.work, NullRecipe(**run.recipe)))


@app.command()
def judge(work: WorkOption = WORK, steps: StepsOption = None, smoke: SmokeOption = False) -> None:
    """Train the judge of `vqd evaluate`; resumes from its checkpoint."""
    run = course(work, steps, smoke)
    typer.echo(train_features(work / "data", run.work, FeaturesRecipe(**run.recipe)))


@app.command()
def plot(work: WorkOption = WORK) -> None:
    """Draw the curves of every training in the folder."""
    for path in plot_curves(work):
        typer.echo(path)


@app.command()
def assemble(
    work: WorkOption = WORK,
    to: Annotated[Path, typer.Option(help="Model folder to write.")] = Path("outputs/model"),
) -> None:
    """Join the trained weights into a model folder that `vqd export` and diffusers read."""
    typer.echo(join_weights(work, to))
