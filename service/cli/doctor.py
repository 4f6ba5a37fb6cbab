"""``vqd doctor``."""

import typer

from service.cli.options import OUTPUTS, ModelOption, OutOption, RepositoryOption, settings_with
from service.local.doctor import examine
from service.models.card import REFERENCE

app = typer.Typer()


@app.command()
def doctor(model: ModelOption = REFERENCE, repository: RepositoryOption = None, out: OutOption = OUTPUTS) -> None:
    """Check this installation and say in plain words what is missing.

    Ends with status 1 when something is.
    """
    findings = examine(settings_with(repository=repository), model, out)
    for finding in findings:
        typer.echo(finding)
    raise typer.Exit(0 if all(finding.good for finding in findings) else 1)
