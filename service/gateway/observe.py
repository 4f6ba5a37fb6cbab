"""Around every request: its id, its metrics, its log line, and an answer even when our code has a bug."""

import logging
import re
import secrets
import time
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.gateway.problems import internal_error
from service.metrics import GatewayMetrics

log = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._~+/=:-]{1,128}")


def request_id(scope: Scope) -> str:
    """The client's X-Request-Id when it is fit for headers and logs, else a new one."""
    given = Headers(scope=scope).get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def route_of(scope: Scope) -> str:
    """The route's template: a label of bounded cardinality, unlike the path."""
    return getattr(scope.get("route"), "path", "unmatched")


@dataclass
class Observe:
    """The outermost ASGI middleware of ours."""

    app: ASGIApp
    metrics: GatewayMetrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started_s, status = time.monotonic(), 0
        scope.setdefault("state", {})["request_id"] = identity = request_id(scope)

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = identity
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            log.exception("request %s: %s %s met a bug", identity, scope["method"], scope["path"])
            if status:  # too late for another answer: break the connection, so that the client sees it is not whole
                raise
            await internal_error(Request(scope))(scope, receive, send_with_id)
        finally:
            self.record(scope, status, time.monotonic() - started_s)

    def record(self, scope: Scope, status: int, seconds: float) -> None:
        """``status`` 0: the connection ended before any answer."""
        route, method = route_of(scope), scope["method"]
        self.metrics.count_request(route, method, status, seconds)
        identity = scope["state"]["request_id"]
        log.info("request %s: %s %s %d %.1f ms", identity, method, scope["path"], status, seconds * 1000)
