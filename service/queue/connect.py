"""From VQD_REDIS_URL to a client: of one Redis, of the primary that Sentinels name, or of a cluster's shard.

``redis://…``, ``unix://…``                            one server
``redis+sentinel://host,host/NAME/DB``                 the primary of service NAME; 26379 is the usual port
``redis+cluster://host,host``                          the shard that owns our keys; 6379 is the usual port

``rediss`` instead of ``redis`` means TLS. A cluster is asked for one owner only, and then used as a plain Redis: all
our keys are in one slot, so redis-py's RedisCluster, which routes every command by its keys, keeps a pool for each node
and has another pipeline, would only be one more thing to fail.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import unquote

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.connection import Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError

from service.errors import SetupError
from service.queue import keys
from service.queue.primary import (
    Address,
    Guides,
    PrimaryConnection,
    PrimarySSLConnection,
    named_by_sentinel,
    owner_of,
)
from service.settings import Settings

HEALTH_CHECK_S = 15
CONNECTIONS = 64
SENTINEL_PORT, CLUSTER_PORT = 26379, 6379
EXAMPLES = {
    "": "redis://:password@host:6379/0",
    "sentinel": "redis+sentinel://:password@host1:26379,host2:26379/NAME/0",
    "cluster": "redis+cluster://:password@host1:6379,host2:6379",
}
Options = dict[str, Any]
"""What a connection of redis-py is made with."""


SEVERAL_HOSTS = re.compile(
    r"(?P<plain>[^+:]+)\+(?P<kind>[^:]+)://(?P<netloc>[^/?#]*)(?P<path>/[^?#]*)?(\?(?P<query>[^#]*))?(#.*)?"
)
"""urlsplit refuses a list with an IPv6 address in it, since the Pythons that check what stands before a bracket."""


def build_client(settings: Settings) -> Redis:
    """A client whose callers bound its answers. Raises SetupError for a wrong URL.

    It has no ``socket_timeout``: redis-py keeps that one with ``asyncio.wait_for``, which in Python 3.11 may swallow a
    cancellation, and then whoever waits for the cancelled task waits for ever.
    """
    limits: Options = {"socket_timeout": None, "socket_connect_timeout": settings.redis_timeout_s, "protocol": 2}
    # A broken connection is worth another try, for every script may be repeated; a silent server is not.
    retry = Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.1), 2, supported_errors=(RedisConnectionError,))
    pooling: Options = {"max_connections": CONNECTIONS, "timeout": settings.redis_timeout_s}
    pooling |= {"health_check_interval": HEALTH_CHECK_S, "retry": retry}
    try:
        options = limits | read_url(settings.redis_url, limits)
        pool = BlockingConnectionPool(**pooling | options)
        pool.connection_class(**pool.connection_kwargs)  # an option that does not exist is told now
    except (ValueError, TypeError):  # whose text may hold a piece of the password
        raise SetupError(f"VQD_REDIS_URL is no URL such as {EXAMPLES[kind_of(settings.redis_url)]}") from None
    return Redis.from_pool(pool)


def build_reader(redis: Redis) -> Redis:
    """A client beside ``redis`` for reads that hand out entries: never repeated by itself."""
    pool = redis.connection_pool
    options = pool.connection_kwargs | {"retry": Retry(NoBackoff(), 0)}
    return Redis.from_pool(ConnectionPool(connection_class=pool.connection_class, **options))


def kind_of(url: str) -> str:
    """``sentinel``, ``cluster``, or '' for one server."""
    return url.partition("://")[0].partition("+")[2]


def read_url(url: str, limits: Options) -> Options:
    """What the connections of a pool are made with. Raises ValueError, and SetupError where it can say more."""
    options = read_guided(url, limits) if kind_of(url) else Options(parse_url(url))
    ours = {Connection: PrimaryConnection, SSLConnection: PrimarySSLConnection}
    given = options.get("connection_class", Connection)
    return options | {"connection_class": ours.get(given, given)}


def read_guided(url: str, limits: Options) -> Options:
    """The same for several hosts, which are asked where to connect."""
    parts = SEVERAL_HOSTS.fullmatch(url)
    if parts is None:
        raise ValueError("no URL of several hosts")
    plain, kind, netloc, path, query = (parts[name] or "" for name in ("plain", "kind", "netloc", "path", "query"))
    credentials, at, hosts = netloc.rpartition("@")
    each = [Options(parse_url(f"{plain}://{credentials}{at}{host}?{query}")) for host in hosts.split(",")]
    port = SENTINEL_PORT if kind == "sentinel" else CLUSTER_PORT
    places = [(options["host"], options.get("port", port)) for options in each if "host" in options]
    if len(places) < len(each):
        raise ValueError("a host without a name")
    options = {name: value for name, value in each[0].items() if name not in ("host", "port")}
    connection = options.get("connection_class", Connection)
    if kind == "sentinel":
        options, login, question, read = ask_sentinels(path, options)
    else:
        options, login, question, read = ask_cluster(path, options)
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    guides = Guides(places, question, read, connection, limits | tls | login, limits["socket_connect_timeout"])
    return options | {"guides": guides}


Asking = tuple[Options, Options, Sequence[str], Callable[[Any, str], Address]]
"""How guides are asked: options of our own connections, the login at the guides, question, how to read the answer."""


def ask_sentinels(path: str, options: Options) -> Asking:
    """``path``: /NAME or /NAME/DB. Sentinels have a login of their own, in the query, or none."""
    name, _, db = path.strip("/").partition("/")
    if not name:
        raise SetupError(f"VQD_REDIS_URL: the name of the service is missing, as in {EXAMPLES['sentinel']}")
    login = {part: options.get(f"sentinel_{part}") for part in ("username", "password")}
    own = {option: value for option, value in options.items() if not option.startswith("sentinel_")}
    own |= {"db": int(db)} if db else {}
    return own, login, ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", unquote(name)), named_by_sentinel


def ask_cluster(path: str, options: Options) -> Asking:
    """``path``: nothing, or /0. Every node takes the same login."""
    if path.strip("/") not in ("", "0") or options.get("db", 0) != 0:
        raise SetupError("VQD_REDIS_URL: a cluster has only database 0")
    login = {part: options.get(part) for part in ("username", "password")}
    return options, login, ("CLUSTER", "SLOTS"), partial(owner_of, key_slot(keys.CHANNEL.encode()))
