"""``vqd gateway``: for containers and clusters; on one machine `vqd up` starts it."""

import typer

from service.cli.options import logged_settings
from service.gateway.app import run

app = typer.Typer()


@app.command()
def gateway() -> None:
    """Run the HTTP gateway.

    Its settings are VQD_ variables of the environment, listed in .env.example.
    """
    run(logged_settings())
