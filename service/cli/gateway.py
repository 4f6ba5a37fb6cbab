"""``vqd gateway``: for containers and clusters; on one machine `vqd up` starts it."""

import typer

from service.gateway.app import run
from service.settings import read_settings

app = typer.Typer()


@app.command()
def gateway() -> None:
    """Run the HTTP gateway.

    Its settings are VQD_ variables of the environment, listed in .env.example.
    """
    run(read_settings())
