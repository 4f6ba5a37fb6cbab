"""``vqd evaluate``."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.options import DtypeOption, ModelOption, WorkOption
from service.export.precision import Precision
from service.lab.evaluation.run import run_cost, run_evaluation
from service.models.card import REFERENCE

app = typer.Typer()


@app.command()
def evaluate(  # noqa: PLR0913, PLR0917  typer makes one option of each
    model: ModelOption = REFERENCE,
    work: WorkOption = Path("outputs/train"),
    out: Annotated[Path, typer.Option(help="JSON lines to write and to go on from; tables go into the .md beside.")] = (
        Path("outputs/quality.jsonl")
    ),
    quick: Annotated[bool, typer.Option("--quick", help="Guidance scales only, with few prompts: minutes.")] = False,
    tables: Annotated[bool, typer.Option("--tables", help="Only write the tables of what was measured.")] = False,
    inception: Annotated[Path | None, typer.Option(help="TorchScript Inception: adds a real FID.")] = None,
    cost: Annotated[
        bool, typer.Option("--cost", help="Instead: quality against passes of the network, on many prompts.")
    ] = False,
    dtype: DtypeOption = Precision.AUTO,
) -> None:
    """Measure quality: what s, r, z and the samplers do.

    Needs the data of `vqd train data`; goes on where it was interrupted.
    """
    lines = (
        run_cost(model, work, out, tables, dtype)
        if cost
        else run_evaluation(model, work, out, quick, tables, inception, dtype)
    )
    for line in lines:
        typer.echo(line)
