"""Options that several commands have, and what becomes of those that were not given."""

import logging
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from service.errors import SetupError
from service.export.precision import Precision
from service.settings import Settings, read_settings, unknown_variables, variable
from service.telemetry.logs import set_up_logging

log = logging.getLogger(__name__)

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
DtypeOption = Annotated[
    Precision,
    typer.Option(
        "--dtype",
        help="Numbers of the network: bf16 and fp16 halve its memory, auto is bf16 where this processor computes in "
        "it and else fp32. What the network says is sampled in float32 either way.",
    ),
]
OutOption = Annotated[Path, typer.Option("--out", help="Folder for pictures; logs go into its folder run.")]
OUTPUTS = Path("outputs")
WorkOption = Annotated[Path, typer.Option("--work", help="Folder for data, checkpoints and curves.")]
ApiKeyOption = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        metavar="KEY",
        show_default="VQD_API_KEY",
        help="Of a service that asks for one. Safer in VQD_API_KEY: others may see a command's options.",
    ),
]
SERVICE = "http://127.0.0.1:8080"


def given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def option(name: str) -> str:
    """As it is written on the command line."""
    return f"--{name.replace('_', '-')}"


def settings_with(**options: Any) -> Settings:
    """The settings, where those options that were given win; says what is misspelt.

    Raises SetupError, which names an option as that, and not as the variable in whose place it is.
    """
    wanted = given(**options)
    try:
        settings = read_settings(**wanted)
    except SetupError as error:
        said = str(error)
        for name in wanted:
            said = said.replace(variable(name), option(name))
        raise SetupError(said) from None
    for sentence in unknown_variables(os.environ):
        typer.echo(f"vqd: note: {sentence}", err=True)
    return settings


def logged_settings() -> Settings:
    """The settings of a process that logs from now on, and logs what is misspelt. Raises SetupError."""
    settings = read_settings()
    set_up_logging(settings.log_level, settings.log_format)
    for sentence in unknown_variables(os.environ):
        log.warning(sentence)
    return settings
