"""The gateway's /metrics on a port of its own, without a key: for a Prometheus that a network lets in there."""

import contextlib
import socket
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.gateway.binding import is_loopback
from service.gateway.routes.health import read_metrics
from service.gateway.state import Gateway
from service.telemetry.port import SideServer


def metrics_app(gateway: Gateway) -> Starlette:
    """On loopback it answers to this machine's names only: no web page is to read it by DNS rebinding."""

    async def scrape(_: Request) -> Response:
        return await read_metrics(gateway)

    host = gateway.settings.host
    named = ["localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host] if is_loopback(host) else ["*"]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=named, www_redirect=False)
    return Starlette(routes=[Route("/metrics", scrape)], middleware=[hosts])


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
