"""Paths under a prefix that a proxy in front takes away (VQD_ROOT_PATH)."""

from starlette._utils import get_route_path
from starlette.types import Scope


def route_path(scope: Scope) -> str:
    """What the router compares with its routes: without the prefix. Starlette's own function, so that who guards a path
    and who routes it never disagree."""
    return get_route_path(scope)
