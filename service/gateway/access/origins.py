"""Which web pages may use the gateway."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import SetupError
from service.gateway.access.hosts import about, may_be_key_free
from service.gateway.document import HEADERS
from service.gateway.openai.errors import SHOULD_RETRY
from service.gateway.problems import problem
from service.settings import Settings, listed

DEFAULT_PORTS = {"http": 80, "https": 443}
PREFLIGHT_S = 3600
"""How long a browser need not ask again."""
METHODS = ("GET", "POST", "DELETE")
ASKED_WITH = (
    *("Authorization", "X-API-Key", "Content-Type", "Idempotency-Key", "Prefer", "Last-Event-ID", "X-Request-Id"),
    *("If-None-Match", "traceparent"),
)
"""The headers of a request that mean something to us."""
OF_OPENAI = (
    *("OpenAI-Organization", "OpenAI-Project", "X-Stainless-Lang", "X-Stainless-Package-Version", "X-Stainless-OS"),
    *("X-Stainless-Arch", "X-Stainless-Runtime", "X-Stainless-Runtime-Version", "X-Stainless-Retry-Count"),
    *("X-Stainless-Timeout", "X-Stainless-Helper-Method"),
)
"""Those with which the ``openai`` package of npm tells of itself. They mean nothing here, and a browser sends no
request of which one is not allowed."""
SHOWN = (*HEADERS, "X-Request-Id", SHOULD_RETRY, "ETag", "RateLimit", "RateLimit-Policy", "WWW-Authenticate")
"""The headers of an answer that a page may read."""


def check_origins(settings: Settings) -> None:
    """Refuse to open a gateway without keys to every web page there is. Raises SetupError."""
    if "*" in listed(settings.cors_origins) and may_be_key_free(settings):
        raise SetupError(
            "VQD_CORS_ORIGINS=*: without API keys every page that somebody here looks at could use the service; "
            "name the origins, such as https://app.example.com"
        )


def cors_options(settings: Settings) -> dict[str, Any]:
    """For Starlette's CORSMiddleware. No credentials: a key is in a header that the page's own code writes."""
    return {
        "allow_origins": listed(settings.cors_origins),
        "allow_methods": METHODS,
        "allow_headers": (*ASKED_WITH, *OF_OPENAI),
        "expose_headers": SHOWN,
        "max_age": PREFLIGHT_S,
    }


def is_same(origin: str, host: str) -> bool:
    """Whether a page of ``origin`` was loaded from ``host``. Its scheme may be a proxy's: only where it is, counts."""
    scheme, _, place = origin.lower().partition("://")
    if scheme not in DEFAULT_PORTS or not place:
        return False
    return place == host.lower() or place == host.lower().removesuffix(f":{DEFAULT_PORTS[scheme]}")


@dataclass
class OwnPages:
    """ASGI middleware, for where no key keeps others out: 403 for what a page of another origin asks.

    Browsers tell the origin in every request that changes something or whose answer a script may read.
    """

    app: ASGIApp
    allowed: tuple[str, ...]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if strangers := [
            one for one in headers.getlist("origin") if one not in self.allowed and not is_same(one, host)
        ]:
            detail = (
                f"pages of {strangers[0]} may not use this service: its operator lets them in with VQD_CORS_ORIGINS"
            )
            await problem(Request(scope), *about(HTTPStatus.FORBIDDEN), detail)(scope, receive, send)
        else:
            await self.app(scope, receive, send)
