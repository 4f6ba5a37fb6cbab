"""Which names the gateway answers to: a web page whose name leads to our address must not be let in (DNS rebinding)."""

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.gateway.paths import route_path
from service.gateway.problems import problem
from service.settings import Settings, listed
from service.sockets import is_loopback

HOST = re.compile(r"(?P<name>[a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?", re.IGNORECASE)
PROBES = ("/healthz", "/readyz")


def may_be_key_free(settings: Settings) -> bool:
    """Whether these settings let anybody in who comes without a key, as long as there are no keys."""
    return settings.allow_unauthenticated or (is_loopback(settings.host) and settings.key_file is None)


def name_in(host: str) -> str | None:
    """The name or address of a Host header, without its port; None when it is malformed."""
    match = HOST.fullmatch(host)
    return match["name"].lower().strip("[]").removesuffix(".") if match else None


@dataclass(frozen=True)
class Names:
    """The names that are answered; none listed: any."""

    listed: tuple[str, ...]
    loopback: bool

    @classmethod
    def of(cls, settings: Settings) -> Self:
        loopback = is_loopback(settings.host)
        own = (settings.host,) if loopback else ()
        return cls(tuple(name.strip("[]") for name in (*listed(settings.allowed_hosts), *own)), loopback)

    def include(self, name: str) -> bool:
        if not self.listed or name in self.listed or (self.loopback and is_loopback(name)):
            return True
        return any(name.endswith(pattern[1:]) for pattern in self.listed if pattern.startswith("*."))


@dataclass
class AllowedHosts:
    """ASGI middleware: 421 for a Host that is not ours, 400 for none, several, or no name at all.

    Probes are let through but on loopback: a kubelet asks by the pod's address, a load balancer perhaps by none.
    """

    # Starlette's TrustedHostMiddleware answers 400 in plain text, looks at the first Host only, and has no exceptions.
    app: ASGIApp
    names: Names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (not self.names.loopback and route_path(scope) in PROBES):
            await self.app(scope, receive, send)
            return
        hosts = Headers(scope=scope).getlist("host")
        name = name_in(hosts[0]) if len(hosts) == 1 else None
        if name is None:
            detail = "a request needs one Host header, with the name that the client calls this service by"
            await problem(Request(scope), *about(HTTPStatus.BAD_REQUEST), detail)(scope, receive, send)
        elif not self.names.include(name):
            detail = f"this service does not answer to the name {name}: its operator lets it in with VQD_ALLOWED_HOSTS"
            await problem(Request(scope), *about(HTTPStatus.MISDIRECTED_REQUEST), detail)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def about(status: HTTPStatus) -> tuple[int, str, str]:
    """Status, title and type of a problem that is no more than its status."""
    return status.value, status.phrase, "about:blank"
