"""``vqd worker``: for containers and clusters; on one machine `vqd up` starts it."""

import typer

from service.cli.options import logged_settings
from service.worker.main import run

app = typer.Typer()


@app.command()
def worker() -> None:
    """Run a worker.

    Its settings are VQD_ variables of the environment, listed in .env.example.
    """
    run(logged_settings())
