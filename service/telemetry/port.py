"""A port of its own for probes and scrapes."""

import contextlib
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp


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
