"""What each route asks of a key, by the route's name. One that is not here asks for ``admin``."""

from collections.abc import Sequence
from typing import Any

from starlette.routing import BaseRoute, Match
from starlette.types import Scope as AsgiScope

from service.gateway.access.identity import Scope

SCOPES = {
    "generate": Scope.GENERATE,
    "create_image": Scope.GENERATE,
    "edit_image": Scope.GENERATE,
    "cancel_job": Scope.GENERATE,
    "list_jobs": Scope.READ,
    "read_job": Scope.READ,
    "read_events": Scope.READ,
    "read_image": Scope.READ,
    "read_archive": Scope.READ,
    "read_webhook_secret": Scope.GENERATE,
    "read_scaled_image": Scope.READ,
    "list_models": Scope.READ,
    "read_model": Scope.READ,
    "read_status": Scope.READ,
    "read_metrics": Scope.METRICS,
    "read_document": Scope.READ,
}
OPEN = frozenset({"check_health", "check_readiness", "show_swagger", "lead_to_docs", "show_playground", "read_asset"})
"""For everybody; a key is not looked at, so that they answer whatever has become of Redis."""
OPEN_IN_PART = frozenset({"read_document"})
"""For everybody, with more for a key that has the scope."""

FOR_OUTAGES = frozenset({"read_metrics"})
"""On loopback answered, too, as long as a Redis that was away from the start cannot say whether there are keys."""


def needed(route: BaseRoute) -> Scope:
    """What a key must have for it."""
    return SCOPES.get(name_of(route), Scope.ADMIN)


def name_of(route: BaseRoute) -> str:
    return getattr(route, "name", "")


def route_of(routes: Sequence[BaseRoute], scope: AsgiScope) -> BaseRoute | None:
    """The route that a request goes to, or one of its path that answers 405; None where there is none."""
    asked: dict[str, Any] = dict(scope, method="GET" if scope["method"] == "HEAD" else scope["method"])
    matches = [(route.matches(asked)[0], route) for route in routes]
    found = [route for wanted in (Match.FULL, Match.PARTIAL) for match, route in matches if match is wanted]
    return found[0] if found else None
