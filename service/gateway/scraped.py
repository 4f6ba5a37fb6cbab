"""The gateway's /metrics on a port of its own, without a key: for a Prometheus that a network lets in there."""

import contextlib
import socket
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.gateway.routes.health import read_metrics
from service.gateway.state import Gateway
from service.telemetry.port import SideServer, side_app


def metrics_app(gateway: Gateway) -> Starlette:
    async def scrape(_: Request) -> Response:
        return await read_metrics(gateway)

    return side_app(gateway.settings.host, [Route("/metrics", scrape)])


@contextlib.asynccontextmanager
async def scraped(gateway: Gateway, port: socket.socket | None) -> AsyncIterator[None]:
    """Answer scrapes at ``port``, if there is one, inside the block. A fault there ends the process."""
    if port is None:
        yield
        return
    server = SideServer(metrics_app(gateway))
    serving = gateway.start("metrics port", server.serve([port]))
    try:
        yield
    finally:
        server.should_exit = True
        with contextlib.suppress(Exception):  # what it died of is in `died_of`, and was logged
            await serving
