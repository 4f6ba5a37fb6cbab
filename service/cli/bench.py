"""``vqd bench bounds`` and ``flips``, which start a service of their own; and what needs the modules, or draws."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from service.cli.options import ModelOption, RepositoryOption, settings_with
from service.folders import require_writable
from service.lab.bench.backends import measure_backends, ways_named
from service.lab.bench.bounds import Effort, measure_bounds, measure_flips
from service.lab.bench.gpu.measure import Clock
from service.lab.bench.gpu.networks import networks
from service.lab.bench.gpu.programme import Programme, measure_gpu
from service.lab.bench.levels import read_csv
from service.lab.bench.levels_plot import plot_levels
from service.lab.bench.model_times import measure_times
from service.lab.bench.orders import draw_orders
from service.models.card import REFERENCE

app = typer.Typer()

ReportOption = Annotated[Path, typer.Option("--out", help="JSON file to write; a table goes into the .md beside.")]


@app.command()
def bounds(
    out: ReportOption = Path("outputs/bench/bounds.json"),
    model: ModelOption = REFERENCE,
    rounds: Annotated[int, typer.Option(min=1, help="Side-by-side rounds; other counts follow.")] = 5,
    grids: Annotated[int, typer.Option(min=1, help="Grids for the flip rate.")] = 500,
) -> None:
    """Measure every promised figure and hold it against its bound.

    One run does it all, with a service that it starts itself.
    """
    require_writable(out.parent)  # before the hours, not after them
    typer.echo(measure_bounds(model, Effort(rounds, grids)).published(out))


@app.command()
def flips(
    out: ReportOption = Path("outputs/bench/flips.json"),
    model: ModelOption = REFERENCE,
    grids: Annotated[int, typer.Option(min=1, help="How many grids are made alone and again in batches.")] = 500,
) -> None:
    """Count the pictures that change when others share their batch.

    With a service that it starts itself.
    """
    require_writable(out.parent)
    typer.echo(measure_flips(model, grids).published(out))


@app.command()
def backends(
    out: ReportOption = Path("outputs/bench/backends.json"),
    model: ModelOption = REFERENCE,
    grids: Annotated[int, typer.Option(min=1, help="Grids that are made by each, alone and in batches.")] = 500,
    rounds: Annotated[int, typer.Option(min=1, help="Times that each speed is measured.")] = 5,
    only: Annotated[
        list[str] | None, typer.Option(help="A backend and dtype, such as 'onnx fp32'. Repeatable.")
    ] = None,
) -> None:
    """Compare the backends and dtypes that this machine can run.

    Their tokens with TorchScript's, alone and in batches, and their speed; in this process.
    """
    require_writable(out.parent)
    typer.echo(measure_backends(model, grids, rounds, ways_named(only or [])).published(out))


@app.command()
def gpu(
    out: ReportOption = Path("outputs/bench/gpu.json"),
    minutes: Annotated[float, typer.Option(min=0, help="What does not fit is left out, and named.")] = 7,
) -> None:
    """Measure the step on this machine's GPU.

    At the released models' sizes with random weights, and of the bundled model: dtypes, batches, CUDA graphs,
    compilers, memory, seeds. Where there is only torch: python -m service.lab.bench.gpu.
    """
    require_writable(out.parent)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    typer.echo(measure_gpu(out, Programme(networks(), device, clock=Clock(minutes))))


@app.command()
def times(
    repository: RepositoryOption = None,
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("outputs/bench/times.json"),
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 15,
) -> None:
    """Measure what each model takes by batch size, for `bench load --times`.

    With the modules of an exported repository, in this process.
    """
    require_writable(out.parent)
    settings = settings_with(repository=repository)
    measured = measure_times(settings.repository, settings.max_batch, rounds)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(measured.model_dump_json(indent=2) + "\n", encoding="utf-8")
    typer.echo(out)


@app.command()
def curves(
    tables: Annotated[list[Path], typer.Argument(help="CSV files of `bench load --poisson`.")],
    out: Annotated[Path, typer.Option(help="Picture to write.")] = Path("outputs/bench/load.png"),
) -> None:
    """Draw what requests take at each load."""
    require_writable(out.parent)
    plot_levels([row for path in tables for row in read_csv(path)], out)
    typer.echo(out)


@app.command()
def orders(
    repository: RepositoryOption = None,
    out: Annotated[Path, typer.Option(help="Folder for the picture.")] = Path("outputs/bench"),
) -> None:
    """Draw in which order each sampler's tokens appear.

    With the modules of an exported repository, in this process.
    """
    require_writable(out)
    typer.echo(draw_orders(settings_with(repository=repository).repository, out))
