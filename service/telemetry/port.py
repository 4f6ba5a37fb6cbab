"""A port of its own for probes and scrapes."""

import contextlib
from collections.abc import Iterator, Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp

from service.sockets import is_loopback


def side_app(host: str, routes: Sequence[Route]) -> Starlette:
    """What such a port at ``host`` answers. On loopback it answers to this machine's names only: no web page is to read
    it by DNS rebinding."""
    named = ["localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host] if is_loopback(host) else ["*"]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=named, www_redirect=False)
    return Starlette(routes=routes, middleware=[hosts])


class SideServer(uvicorn.Server):
    """uvicorn beside what the process is for; signals stay that one's."""

    def __init__(self, app: ASGIApp) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            proxy_headers=False,
            timeout_graceful_shutdown=1,
            server_header=False,
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
