"""The server around the application: uvicorn with our limits."""

import asyncio
import contextlib
import logging
import resource
import socket
from typing import Any

import uvicorn
from fastapi import FastAPI

from service.gateway.connection import IDLE_S, Config, Limits, Seldom
from service.gateway.state import Gateway
from service.settings import Settings

log = logging.getLogger(__name__)

BACKLOG = 2048
ACCEPTED_AT_ONCE = 64
"""Connections that are accepted before the first of them is looked at."""
OTHER_DESCRIPTORS = 192
"""What Redis, files and connections that were just accepted need of the descriptors."""
FEWEST = 16


def raise_descriptor_limit() -> int:
    """Open as many files as we may → how many these are."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # a hard limit may be more than the kernel takes
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def limits_of(settings: Settings, descriptors: int) -> Limits:
    """One that could not be accepted for want of a descriptor would keep all others out, so fewer are let in."""
    connections = settings.max_connections
    if descriptors != resource.RLIM_INFINITY and descriptors < connections + OTHER_DESCRIPTORS:
        connections = max(FEWEST, descriptors - OTHER_DESCRIPTORS)
        log.warning(
            "%d descriptors are too few for VQD_MAX_CONNECTIONS=%d: at most %d connections are kept open",
            *(descriptors, settings.max_connections, connections),
        )
    return Limits(connections, settings.max_header_bytes, settings.request_timeout_s)


class Server(uvicorn.Server):
    """uvicorn, ended also by the death of a background task, and telling long answers that it stops."""

    def __init__(self, app: FastAPI, limits: Limits, shutdown_s: int) -> None:
        config = Config(
            app,
            limits,
            server_header=False,
            root_path=app.state.gateway.settings.root_path,
            proxy_headers=False,  # nothing here asks for a client's address or scheme, so nobody need be believed
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=shutdown_s,
            backlog=ACCEPTED_AT_ONCE,
        )
        super().__init__(config)
        self.gateway: Gateway = app.state.gateway
        self.accept_failed = Seldom()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(self.on_loop_error)
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(BACKLOG)  # asyncio has one number for how many wait and how many it accepts at once

    def on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What asyncio would log. It fails to accept thousands of times a second when descriptors have run out."""
        if not context["message"].startswith("socket.accept()") or self.accept_failed():
            loop.default_exception_handler(context)

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self.gateway.died_of is not None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.gateway.stopping.set()
        await super().shutdown(sockets)
