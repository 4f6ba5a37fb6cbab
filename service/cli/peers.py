"""``vqd bench peers`` and ``networks``: diffusers at its best, and the network in other runtimes."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.options import ModelOption
from service.folders import require_writable
from service.lab.bench.networks import measure_networks
from service.lab.bench.peers import measure_peers
from service.models.card import REFERENCE

app = typer.Typer()


@app.command()
def peers(
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("outputs/bench/peers.json"),
    model: ModelOption = REFERENCE,
    rounds: Annotated[int, typer.Option(min=1, help="Side-by-side rounds.")] = 5,
) -> None:
    """Hold the service against diffusers at its best batch, dtype and threads.

    With services that it starts itself, one in each dtype.
    """
    require_writable(out.parent)
    typer.echo(measure_peers(model, rounds).published(out))


@app.command()
def networks(
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("outputs/bench/networks.json"),
    model: ModelOption = REFERENCE,
    rounds: Annotated[int, typer.Option(min=1, help="Times that each is measured.")] = 7,
) -> None:
    """Time the network alone in PyTorch's, ONNX's and OpenVINO's runtimes.

    On the CPU; a runtime that is not installed is left out.
    """
    require_writable(out.parent)
    report, told = measure_networks(model, rounds)
    report.published(out)
    typer.echo(f"{told}\n\n{out}")
