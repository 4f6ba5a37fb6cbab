"""``vqd keys``: who may ask the service for what. It talks to the service's Redis, and needs no running gateway."""

import asyncio
import json
import math
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import typer

from service.cli.options import settings_with
from service.errors import InvalidRequest, RedisUnavailable
from service.gateway.access.identity import Scope
from service.gateway.access.tokens import mint
from service.queue.api_keys import ApiKey, ApiKeys, Grant
from service.queue.store import Store

app = typer.Typer(no_args_is_help=True)

T = TypeVar("T")
NAME_CHARS = 64
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
DURATION = re.compile(rf"(\d{{1,10}})([{''.join(UNITS_S)}])|0", re.ASCII)
MOST_S = 3650 * UNITS_S["d"]
TRIES = 5
"""An id is drawn; to draw one that is taken even once takes millions of keys."""
COLUMNS = ("id", "name", "scopes", "created", "expires", "last used", "state", "weight", "limits")

KeyId = Annotated[str, typer.Argument(metavar="ID", help="Of the key: `vqd keys list` shows it.")]


def seconds(option: str, text: str, least: int) -> int:
    """Of ``90d`` and the like. Raises InvalidRequest naming the option and what it takes."""
    found = DURATION.fullmatch(text)
    value = int(found[1] or 0) * UNITS_S[found[2] or "s"] if found else -1
    if not least <= value <= MOST_S:
        some = "0, " if least == 0 else ""
        raise InvalidRequest(option, f"{text!r} is no time such as {some}30m, 24h or 90d, at most 3650d")
    return value


def with_keys(work: Callable[[ApiKeys], Awaitable[T]]) -> T:
    """What ``work`` makes of the keys of VQD_REDIS_URL."""

    async def run() -> T:
        store = Store.connect(settings_with())
        try:
            return await work(ApiKeys(store))
        except RedisUnavailable as error:
            raise RedisUnavailable(f"{str(error).rstrip('.')}; VQD_REDIS_URL says where it is") from None
        finally:
            await store.close()

    return asyncio.run(run())


def show_once(token: str) -> None:
    """The token alone on stdout, for scripts."""
    typer.echo(token)
    typer.echo("vqd: note: this is shown once, and nobody can show it again: keep it where secrets are kept", err=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What people call it: whose it is, or what for.")],
    scope: Annotated[
        list[Scope] | None,
        typer.Option(show_default=str(Scope.GENERATE), help="What it may do; generate may read. Repeatable."),
    ] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", show_default="never", help="Such as 90d.")] = None,
    weight: Annotated[
        float, typer.Option(min=0.01, max=1000, help="Its share where several wait, beside the others'.")
    ] = 1.0,
    cost_per_minute: Annotated[
        int | None,
        typer.Option(min=0, max=10**9, show_default="the service's", help="Passes of the network; 0: no limit."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=0, max=10**6, show_default="the service's", help="Queued and running at once; 0: no limit."),
    ] = None,
    result_bytes: Annotated[
        int | None,
        typer.Option(min=0, max=2**50, show_default="the service's", help="Of its kept pictures; 0: no limit."),
    ] = None,
) -> None:
    """Make an API key, and show it this once."""
    if not 1 <= len(name.strip()) <= NAME_CHARS or not name.isprintable():
        raise InvalidRequest("NAME", f"must have 1 to {NAME_CHARS} printable characters")
    if math.isnan(weight):  # which is in every range
        raise InvalidRequest("--weight", "must be a number from 0.01 to 1000")
    ttl_ms = None if expires is None else 1000 * seconds("--expires", expires, least=1)
    grant = Grant(
        name=name.strip(),
        scopes=tuple(dict.fromkeys(scope or [Scope.GENERATE])),
        weight=weight,
        cost_per_minute=cost_per_minute,
        jobs=jobs,
        result_bytes=result_bytes,
    )

    async def make(keys: ApiKeys) -> str:
        for _ in range(TRIES):
            minted = mint()
            if await keys.create(minted.id, minted.digest, grant, ttl_ms):
                return minted.token
        raise AssertionError("every id that was drawn is taken")

    show_once(with_keys(make))


@app.command()
def rotate(
    key_id: KeyId,
    overlap: Annotated[
        str, typer.Option(metavar="TIME", help="How long the present secret still works; 0: not at all.")
    ] = "24h",
) -> None:
    """Give a key a new secret; the present one works on for a while."""
    overlap_ms = 1000 * seconds("--overlap", overlap, least=0)
    minted = mint(key_id)
    with_keys(lambda keys: keys.rotate(key_id, minted.digest, overlap_ms))
    show_once(minted.token)


@app.command()
def revoke(key_id: KeyId) -> None:
    """End a key for ever; gateways hear of it within a second."""
    with_keys(lambda keys: keys.revoke(key_id))
    typer.echo(f"{key_id} is revoked")


@app.command("list")
def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list; times in ms since 1970.")] = False,
) -> None:
    """Show every key: what it may do, when it was used, whether it works."""

    async def read(keys: ApiKeys) -> tuple[list[ApiKey], int]:
        return await keys.list(), await keys.now_ms()

    found, now_ms = with_keys(read)
    if as_json:
        typer.echo(json.dumps([key.model_dump(mode="json") | {"state": key.state(now_ms)} for key in found], indent=2))
    else:
        typer.echo(table([COLUMNS, *(row(key, now_ms) for key in found)]))


def row(key: ApiKey, now_ms: int) -> Sequence[str]:
    times = [moment(key.created_ms), moment(key.expires_ms), moment(key.used_ms)]
    return key.id, key.name, " ".join(key.scopes), *times, key.state(now_ms), f"{key.weight:g}", limits(key)


def moment(ms: int | None) -> str:
    """UTC, to the minute: ``used_ms`` is no more exact."""
    return "never" if ms is None else datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%MZ")


def limits(key: ApiKey) -> str:
    said = {"cost/min": key.cost_per_minute, "jobs": key.jobs, "bytes": key.result_bytes}
    return ", ".join(f"{name} {limit or 'unlimited'}" for name, limit in said.items() if limit is not None) or "usual"


def table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
