"""``vqd up``."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.options import OUTPUTS, DtypeOption, OutOption, RepositoryOption, settings_with
from service.export.precision import Precision
from service.gateway.access.key_file import own_key
from service.local.up import up as start
from service.models.card import REFERENCE
from service.settings import Settings, variable
from service.telemetry.logs import set_up_logging

app = typer.Typer()

REPLACED = ("redis_url", "durable_replicas", "triton_url")
"""Settings that the parts get from us, whatever the environment says."""


@app.command()
def up(
    once: Annotated[str | None, typer.Option(help="Make one picture of this prompt or class, then stop.")] = None,
    first: Annotated[
        str | None, typer.Option(help="Make one picture of this prompt or class, then keep serving.")
    ] = None,
    model: Annotated[
        list[Path] | None,
        typer.Option(show_default="the bundled model", help="Model folder; give it again for each model to serve."),
    ] = None,
    repository: RepositoryOption = None,
    port: Annotated[
        int | None,
        typer.Option(
            show_default=f"VQD_PORT, or {Settings.model_fields['port'].default}",
            help="Port of the gateway, up to 65535; 0 picks a free one.",
        ),
    ] = None,
    dtype: DtypeOption = Precision.AUTO,
    out: OutOption = OUTPUTS,
) -> None:
    """Start Redis, Triton, a worker and the gateway on this machine, and keep them alive until Ctrl-C.

    It exports the model first if that has not been done, or has with another
    model, in another dtype or by another version.
    """
    settings = for_people(settings_with(repository=repository, port=port))
    if "repository" not in settings.model_fields_set:  # beside its logs: a checkout's own stays as it was committed
        settings = settings.model_copy(update={"repository": out / "repository"})
    set_up_logging("WARNING", settings.log_format)
    if replaced := [variable(field) for field in REPLACED if field in settings.model_fields_set]:
        typer.echo(f"vqd: note: {', '.join(replaced)}: not used, `vqd up` starts a Redis and a Triton itself", err=True)
    settings, made = own_key(settings, out / "run")
    if made:
        typer.echo(f"API key, shown this once and kept in {settings.key_file}: {settings.api_key}")
    start(settings, model or [REFERENCE], out, once, first, dtype=dtype)


def for_people(settings: Settings) -> Settings:
    """Text logs unless told otherwise."""
    return settings if "log_format" in settings.model_fields_set else settings.model_copy(update={"log_format": "text"})
