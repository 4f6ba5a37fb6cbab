"""Where a service is, and how one connects to it."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypedDict
from urllib.parse import urlsplit

import httpx

from service.errors import SetupError
from service.sockets import is_here

HERE = "http://127.0.0.1:8080"
API_KEY = "VQD_API_KEY"
"""The variable with the key, where none is given."""


MANY = httpx.Limits(max_connections=None, max_keepalive_connections=20)
"""Each job that is followed has a connection of its own: the service says how many may be."""


class Connection(TypedDict):
    """What httpx's clients take."""

    base_url: str
    headers: dict[str, str]
    timeout: float
    limits: httpx.Limits
    trust_env: bool


def heeds_proxies(url: str) -> bool:
    """Whether the environment's proxies are asked on the way to ``url``: to this machine there is a shorter one."""
    return not is_here(urlsplit(url).hostname or "")


def authorization(api_key: str) -> dict[str, str]:
    """The headers that show an API key; none without one."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def shown(url: str) -> str:
    """For messages: without a user and password that may stand in it."""
    return re.sub(r"//.*@", "//", url).rstrip("/")


def require_place(url: httpx.URL) -> None:
    """Raises ValueError for what cannot be the beginning of our URLs."""
    if url.scheme not in ("http", "https"):
        raise ValueError("it begins with neither http:// nor https://")
    if not url.host:
        raise ValueError("it names no host")
    if url.query:
        raise ValueError("a path may follow the host, but no ?")
    url.host.encode("idna")  # as whoever looks it up


@contextmanager
def connection(url: str, api_key: str | None, timeout_s: float) -> Iterator[Connection]:
    """For the making of a client. Raises SetupError for what is no URL or key, or a proxy that cannot be used."""
    key = os.environ.get(API_KEY, "") if api_key is None else api_key
    if key.strip() != key or not (key.isascii() and key.isprintable()):
        raise SetupError("the API key has a space or a line break at an end, or a character that no key has")
    try:
        require_place(httpx.URL(url))
        yield Connection(
            base_url=url,
            headers=authorization(key),
            timeout=timeout_s,
            limits=MANY,
            trust_env=heeds_proxies(url),
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise SetupError(f"{shown(url)} cannot be reached: {error}") from None
