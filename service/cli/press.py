"""``vqd bench load``, ``pictures`` and ``inpainting``, which ask a service and so need no torch."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.options import SERVICE, ApiKeyOption, RepositoryOption, WorkOption, settings_with
from service.errors import SetupError
from service.folders import require_writable
from service.lab.bench.arrivals import Mix, read_rates
from service.lab.bench.flood import flood_test
from service.lab.bench.inpaintings import draw_inpaintings
from service.lab.bench.levels import published
from service.lab.bench.load import load_test
from service.lab.bench.open_loop import Policy, Trial, press_policies, press_service
from service.lab.bench.pictures import draw_pictures
from service.lab.bench.simulation import read_times

app = typer.Typer()


@app.command()
def load(  # noqa: PLR0913, PLR0917  typer makes one option of each
    url: Annotated[str | None, typer.Argument(help="Where the service is. Not with --policy.")] = None,
    requests: Annotated[int, typer.Option(min=1, help="How many in all; with --poisson, at each load.")] = 100,
    concurrency: Annotated[int, typer.Option(min=1, help="Most at the same time. Not with --poisson.")] = 8,
    rate: Annotated[
        float | None, typer.Option(min=0.001, show_default="as they finish", help="Requests per second, evenly spaced.")
    ] = None,
    poisson: Annotated[
        str | None,
        typer.Option(
            metavar="RATE[,RATE…]",
            help="They arrive at random, so many per second, or with an x a share of what 16 clients get: 0.5x,0.8x.",
        ),
    ] = None,
    mix: Annotated[Mix, typer.Option(help="With --poisson: the same parameters in all requests, or many.")] = Mix.PLAIN,
    policy: Annotated[
        list[Policy] | None,
        typer.Option(help="With --poisson: start a service that batches steps, or whole requests. May be repeated."),
    ] = None,
    repository: RepositoryOption = None,
    deadline: Annotated[
        float, typer.Option(min=0.001, help="Seconds after which an answer is no longer in time.")
    ] = 2.0,
    times: Annotated[
        Path | None, typer.Option(help="What `vqd bench times` wrote: to simulate the same without overhead.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the arrivals.")] = 0,
    out: Annotated[Path, typer.Option(help="CSV file of --poisson.")] = Path("outputs/bench/load.csv"),
    api_key: ApiKeyOption = None,
) -> None:
    """Press a service: latencies, pictures per second, errors.

    With --poisson at several loads, each a line of a table.
    """
    if (url is None) is not bool(policy):
        raise SetupError("give either the address of a service or --policy")
    settings = settings_with(repository=repository, api_key=api_key)
    if poisson is None:
        if url is None:
            raise SetupError("--policy is for --poisson")
        typer.echo(load_test(url, requests, concurrency, rate, settings.api_key))
        return
    require_writable(out.parent)
    best = read_times(times) if times else None
    trial = Trial(mix, read_rates(poisson), requests, deadline, seed, best, settings.api_key)
    if url:
        levels = press_service(url, trial)
    else:
        levels = press_policies(policy or [], settings.model_copy(update={"port": 0}), trial)
    typer.echo(published(levels, out))


@app.command()
def flood(
    url: Annotated[str, typer.Argument(help="Where the service is.")],
    flood_key: Annotated[str, typer.Option(help="The API key that floods; --api-key is the other one's.")],
    requests: Annotated[int, typer.Option(min=1, help="How many the other one sends.")] = 100,
    api_key: ApiKeyOption = None,
) -> None:
    """Press a service with two API keys, one of which floods: what the other sees.

    One sends a fifth of what the service can do, first alone, then beside ten
    times as much from the key that floods.
    """
    typer.echo(flood_test(url, settings_with(api_key=api_key).api_key, flood_key, requests))


@app.command()
def pictures(
    url: Annotated[str, typer.Argument(help="Where the service is.")] = SERVICE,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("docs"),
    work: WorkOption = Path("outputs/train"),
    api_key: ApiKeyOption = None,
) -> None:
    """Draw the README's pictures with a running service.

    A contact sheet, and what s, r and z do. Needs the data of `vqd train data`.
    """
    for path in draw_pictures(url, out, work / "data", api_key=settings_with(api_key=api_key).api_key):
        typer.echo(path)


@app.command()
def inpainting(
    url: Annotated[str, typer.Argument(help="Where the service is.")] = SERVICE,
    out: Annotated[Path, typer.Option(help="Picture to write.")] = Path("docs/inpainting.png"),
    api_key: ApiKeyOption = None,
) -> None:
    """Draw ten inpaintings with a running service.

    The picture, the part that is drawn anew, and the result; every other pixel must come out as it was.
    """
    require_writable(out.parent)
    draw_inpaintings(url, out, settings_with(api_key=api_key).api_key)
    typer.echo(out)
