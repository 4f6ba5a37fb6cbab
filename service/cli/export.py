"""``vqd export``."""

import sys
from typing import Annotated

import typer

from service.cli.options import DtypeOption, ModelOption, RepositoryOption, settings_with
from service.export.build import export_model
from service.export.config import Backend
from service.export.precision import Precision
from service.export.written import EXPORTING
from service.local.live import LiveLine
from service.models.card import REFERENCE

app = typer.Typer()


@app.command()
def export(
    model: ModelOption = REFERENCE,
    repository: RepositoryOption = None,
    backend: Annotated[str, typer.Option(help=f"Triton's backend, {' or '.join(Backend)}.")] = Backend.PYTHON.value,
    max_batch: Annotated[int, typer.Option(min=1, max=1024, help="Most pictures in one call.")] = 16,
    dtype: DtypeOption = Precision.AUTO,
) -> None:
    """Turn a model folder into a Triton model repository."""
    folder = settings_with(repository=repository).repository
    with LiveLine(sys.stderr) as line:
        info = export_model(
            model,
            folder,
            backend,
            max_batch,
            lambda stage: line.show(f"{EXPORTING}{stage}"),
            dtype,
            lambda note: typer.echo(f"vqd: note: {note}", err=True),
        )
    typer.echo(f"{folder}: {info.name} {info.sha256[:16]}, backend {backend}, {info.dtype}")
