"""Around every request: its id, its metrics, its log line."""

import logging
import re
import secrets
import time
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.gateway.problems import PATH_CHARS, shorten
from service.telemetry.logs import ids
from service.telemetry.metrics import GatewayMetrics
from service.telemetry.tracing import Tracer

log = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._~+/=:-]{1,128}")


def request_id(scope: Scope) -> str:
    """The client's X-Request-Id when it is fit for headers and logs, else a new one."""
    given = Headers(scope=scope).get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def path_of(scope: Scope) -> str:
    """As it was sent, up to a length: the decoded one may hold a line break."""
    return shorten(bytes(scope["raw_path"]).decode("ascii", "backslashreplace"), PATH_CHARS)


def route_of(scope: Scope) -> str:
    """The route's template: a label of bounded cardinality, unlike the path."""
    return getattr(scope.get("route"), "path", "unmatched")


@dataclass
class Observe:
    """The outermost ASGI middleware of ours."""

    app: ASGIApp
    metrics: GatewayMetrics
    tracer: Tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope.setdefault("state", {})["request_id"] = identity = request_id(scope)
        self.tracer.annotate({"vqd.request_id": identity})
        with ids(request_id=identity, job_id=None, key=None):
            await self.observe(scope, receive, send, identity)

    async def observe(self, scope: Scope, receive: Receive, send: Send, identity: str) -> None:
        started_s, status = time.monotonic(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = identity
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            self.record(scope, status, time.monotonic() - started_s)

    def record(self, scope: Scope, status: int, seconds: float) -> None:
        """``status`` 0: the connection ended before any answer."""
        route, method = route_of(scope), scope["method"]
        self.metrics.count_request(route, method, status, seconds)
        fields = {"method": method, "route": route, "status": status, "seconds": round(seconds, 4)}
        log.info("%s %s", method, path_of(scope), extra={"fields": fields})
