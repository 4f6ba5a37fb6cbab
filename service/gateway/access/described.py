"""Keys in the OpenAPI document: which operation takes one, with which scope, and what is said without."""

import copy
from typing import Any

from service.errors import Forbidden, Unauthorized
from service.gateway.access.identity import Scope
from service.gateway.access.scopes import OPEN, SCOPES
from service.gateway.problems import status_and_title

BEARER, HEADER = "bearer", "header"
SCHEMES = {
    BEARER: {"type": "http", "scheme": "bearer", "description": "An API key: `Authorization: Bearer KEY`."},
    HEADER: {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key in another header."},
}
REFUSALS = (Unauthorized, Forbidden)


def with_keys(whole: dict[str, Any]) -> dict[str, Any]:
    """The document, each operation with the keys that it takes; ``operationId`` is the name of its route."""
    whole.setdefault("components", {})["securitySchemes"] = SCHEMES
    for operation in operations(whole):
        name = operation["operationId"]
        if name in OPEN:
            continue
        scope = SCOPES.get(name, Scope.ADMIN)
        operation["security"] = [{scheme: [str(scope)]} for scheme in SCHEMES]
        for kind in REFUSALS:
            status, title = status_and_title(kind)
            operation["responses"][str(status)] = {
                **operation["responses"]["default"],
                "description": f"{title}: `{scope}`.",
            }
    return whole


def without_need(whole: dict[str, Any]) -> dict[str, Any]:
    """A copy for a service that asks nobody for a key."""
    whole = copy.deepcopy(whole)
    for operation in operations(whole):
        if "security" in operation:
            operation["security"] = [{}, *operation["security"]]
    return whole


def operations(whole: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in whole["paths"].values() for operation in path.values()]
