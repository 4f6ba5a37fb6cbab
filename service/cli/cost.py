"""``vqd bench gateway``: what is around the model, measured without one."""

from pathlib import Path
from typing import Annotated

import typer

from service.folders import require_writable
from service.lab.bench.costs import Load
from service.lab.bench.gateway import measure_gateway

app = typer.Typer()


@app.command()
def gateway(
    out: Annotated[Path, typer.Option("--out", help="JSON file to write.")] = Path("outputs/bench/gateway.json"),
    fewer: Annotated[int, typer.Option(min=1, help="So many times fewer jobs, clients and listeners.")] = 1,
) -> None:
    """Measure what the gateway costs: jobs accepted, kept, answered and followed.

    With a Redis, a gateway and a worker that it starts itself, and a Triton without a network.
    """
    require_writable(out.parent)
    typer.echo(measure_gateway(Load().fewer(fewer) if fewer > 1 else Load()).published(out))
