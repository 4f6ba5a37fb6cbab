"""In front of every route: who asks, and whether they may. What is refused is not read any further."""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import Forbidden, RedisUnavailable, Unauthorized, VqdError
from service.gateway.access.identity import EVERYBODY, NOBODY, Identity
from service.gateway.access.known import KnownKeys
from service.gateway.access.scopes import FOR_OUTAGES, OPEN, OPEN_IN_PART, name_of, needed, route_of
from service.gateway.problems import problem_of
from service.telemetry.logs import note_ids
from service.telemetry.metrics import GatewayMetrics


@dataclass
class Guard:
    """ASGI middleware: sets ``state.identity``, or answers 401, 403, or 503 when Redis cannot say who it is."""

    app: ASGIApp
    routes: Sequence[BaseRoute]
    keys: KnownKeys
    metrics: GatewayMetrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        route = route_of(self.routes, scope)
        try:
            identity = await self.admit(route, Headers(scope=scope))
        except VqdError as error:
            scope["route"] = route  # for the log and the metrics
            if isinstance(error, RedisUnavailable):
                self.metrics.redis_errors.inc()
            await problem_of(Request(scope), error)(scope, receive, send)
            return
        scope.setdefault("state", {})["identity"] = identity
        await self.app(scope, receive, send)

    async def admit(self, route: BaseRoute | None, headers: Headers) -> Identity:
        """Who asks. Raises Unauthorized, Forbidden, RedisUnavailable."""
        name = name_of(route) if route else ""
        if name in OPEN:
            return NOBODY
        try:
            if await self.keys.key_free():
                return EVERYBODY
            identity = await self.keys.identify(token_of(headers))
            note_ids(key=identity.account.owner)
            if route and not (scope := needed(route)).within(identity.scopes):
                raise Forbidden(f"this takes a key with the scope {scope}; yours has {listed(identity)}")
        except VqdError:
            if name in OPEN_IN_PART or (name in FOR_OUTAGES and self.keys.in_doubt):
                return NOBODY
            raise
        return identity


def listed(identity: Identity) -> str:
    return ", ".join(sorted(identity.scopes)) or "none"


def token_of(headers: Headers) -> str | None:
    """The key that a request has in its head; None without one. Raises Unauthorized when it has several."""
    schemes = [value.partition(" ") for value in headers.getlist("authorization")]
    sent = [token.strip() for scheme, _, token in schemes if scheme.lower() == "bearer"]
    tokens = {token for token in (*sent, *map(str.strip, headers.getlist("x-api-key"))) if token}
    if len(tokens) > 1:
        raise Unauthorized("the request has several API keys; send one")
    return tokens.pop() if tokens else None
