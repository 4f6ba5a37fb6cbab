"""``vqd bench gateway`` and ``profile``, which measure what is around the model with a service of their own."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.options import ModelOption
from service.folders import require_writable
from service.lab.bench.costs import Load
from service.lab.bench.gateway import measure_gateway
from service.lab.bench.profile import measure_profile
from service.models.card import REFERENCE

app = typer.Typer()


@app.command()
def gateway(
    out: Annotated[Path, typer.Option("--out", help="JSON file to write.")] = Path("outputs/bench/gateway.json"),
    fewer: Annotated[int, typer.Option(min=1, help="So many times fewer jobs, clients and listeners.")] = 1,
) -> None:
    """Measure what the gateway costs: jobs accepted, kept, answered, followed.

    With a Redis, a gateway and a worker that it starts itself, and a Triton without a network.
    """
    require_writable(out.parent)
    typer.echo(measure_gateway(Load().fewer(fewer) if fewer > 1 else Load()).published(out))


@app.command()
def profile(
    out: Annotated[Path, typer.Option("--out", help="JSON file to write.")] = Path("outputs/bench/profile.json"),
    model: ModelOption = REFERENCE,
    rounds: Annotated[int, typer.Option(min=1, help="How often one request, and eight at once, are sent.")] = 30,
) -> None:
    """Measure where the time of a request goes, from HTTP to pixels.

    Alone and of eight at once, by the traces of a service that it starts itself.
    """
    require_writable(out.parent)
    typer.echo(measure_profile(model, rounds).published(out))
