"""``vqd bench load`` and ``pictures``, which ask a running service and so need no torch."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.options import SERVICE, WorkOption
from service.lab.bench.load import load_test
from service.lab.bench.pictures import draw_pictures

app = typer.Typer()

UrlArgument = Annotated[str, typer.Argument(help="Where the service is.")]


@app.command()
def load(
    url: UrlArgument,
    requests: Annotated[int, typer.Option(min=1, help="How many in all.")] = 100,
    concurrency: Annotated[int, typer.Option(min=1, help="Most at the same time.")] = 8,
    rate: Annotated[
        float | None, typer.Option(min=0.001, show_default="as they finish", help="Requests per second.")
    ] = None,
) -> None:
    """Press a running service: latencies, pictures per second, errors."""
    typer.echo(load_test(url, requests, concurrency, rate))


@app.command()
def pictures(
    url: UrlArgument = SERVICE,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("docs"),
    work: WorkOption = Path("outputs/train"),
) -> None:
    """Draw the README's pictures with a running service.

    A contact sheet, and what s, r and z do. Needs the data of `vqd train data`.
    """
    for path in draw_pictures(url, out, work / "data"):
        typer.echo(path)
