"""``vqd replay``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from service.cli.options import SERVICE, ApiKeyOption, settings_with
from service.client.blocking.client import Client
from service.errors import VqdError
from service.provenance.origin import Origin
from service.replay import Given, Replayed, expect, replay

app = typer.Typer()


@app.command("replay")
def replay_files(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Pictures that this service has made.")],
    url: Annotated[str, typer.Option(help="Where the service is.")] = SERVICE,
    api_key: ApiKeyOption = None,
    image: Annotated[Path | None, typer.Option(help="The picture that they were made from, if there was one.")] = None,
    mask: Annotated[Path | None, typer.Option(help="The mask of what was to change, if there was one.")] = None,
) -> None:
    """Make pictures again from their files, and say whether they are equal.

    That is whether their tokens are; status 1 when one's are not.
    The service's weights, dtype, backend and version are named where they are not those that made the file.
    """
    given = Given(image, mask)
    with Client(url, settings_with(api_key=api_key).api_key) as client:
        client.models()  # or each file would be told that there is no service
        outcomes = [show(path, client, given) for path in files]
    if not all(outcomes):
        sys.exit(1)


def show(path: Path, client: Client, given: Given) -> bool:
    """A line for the file; whether it is equal."""
    try:
        replayed = again(path, client, given)
    except VqdError as error:
        typer.echo(f"vqd: {path}: {error}", err=True)
        return False
    typer.echo(f"{path}: {replayed}")
    return replayed.equal


def again(path: Path, client: Client, given: Given) -> Replayed:
    origin = Origin.read(path)
    for difference in expect(client, origin):
        typer.echo(f"vqd: note: {path}: {difference}: it may come out differently", err=True)
    return replay(client, origin, given)
