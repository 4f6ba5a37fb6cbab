"""Options that several commands have, and what becomes of those that were not given."""

from pathlib import Path
from typing import Annotated, Any

import typer

from service.settings import Settings, read_settings

ModelOption = Annotated[
    Path,
    typer.Option(
        "--model", show_default="the bundled model", help="Model folder, laid out like diffusers' VQDiffusionPipeline."
    ),
]
RepositoryOption = Annotated[
    Path | None,
    typer.Option(
        "--repository",
        show_default=f"VQD_REPOSITORY, or {Settings.model_fields['repository'].default}",
        help="Folder of the exported model, which Triton serves.",
    ),
]
WorkOption = Annotated[Path, typer.Option("--work", help="Folder for data, checkpoints and curves.")]
SERVICE = "http://127.0.0.1:8080"


def given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def settings_with(**options: Any) -> Settings:
    """The settings, where those options that were given win. Raises SetupError."""
    return read_settings(**given(**options))
