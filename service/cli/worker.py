"""``vqd worker``: for containers and clusters; on one machine `vqd up` starts it."""

import typer

from service.settings import read_settings
from service.worker.main import run

app = typer.Typer()


@app.command()
def worker() -> None:
    """Run a worker.

    Its settings are VQD_ variables of the environment, listed in .env.example.
    """
    run(read_settings())
