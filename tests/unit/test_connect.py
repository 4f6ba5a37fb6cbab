"""VQD_REDIS_URL of each kind: what becomes of it, and what people are told of a wrong one."""

import asyncio
import socket
import time
from typing import Any

import pytest
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError

from service.errors import SetupError
from service.queue import keys
from service.queue.connect import build_client, build_reader
from service.queue.primary import Guides, PrimaryConnection, PrimarySSLConnection, named_by_sentinel, owner_of
from service.settings import read_settings

SECRET = "pa/ss,w@rd"
WRITTEN = "pa%2Fss%2Cw%40rd"


def pool_of(url: str) -> Any:
    return build_client(read_settings(redis_url=url)).connection_pool


def guides_of(url: str) -> Guides:
    guides = pool_of(url).connection_kwargs["guides"]
    assert isinstance(guides, Guides)
    return guides


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://host/1", PrimaryConnection),
        ("rediss://host", PrimarySSLConnection),
        ("unix:///run/redis.sock", UnixDomainSocketConnection),
        ("redis+sentinel://a,b/name", PrimaryConnection),
        ("rediss+cluster://a,b", PrimarySSLConnection),
    ],
)
def test_each_kind_has_its_connections_and_so_has_its_reader(url: str, kind: type[Connection]) -> None:
    client = build_client(read_settings(redis_url=url))
    reader = build_reader(client).connection_pool
    assert client.connection_pool.connection_class is reader.connection_class is kind
    assert reader.connection_kwargs.get("guides") is client.connection_pool.connection_kwargs.get("guides")


def test_sentinels_and_their_primary_have_a_login_each() -> None:
    url = f"redis+sentinel://user:{WRITTEN}@h1:1,[::1],h2/my%2Fname/2?sentinel_password=other"
    guides, options = guides_of(url), pool_of(url).connection_kwargs
    assert guides.places == [("h1", 1), ("::1", 26379), ("h2", 26379)]
    assert guides.question == ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "my/name")
    assert (options["username"], options["password"], options["db"]) == ("user", SECRET, 2)
    assert (guides.options["username"], guides.options["password"]) == (None, "other")
    assert "db" not in guides.options


def test_the_nodes_of_a_cluster_have_one_login_and_one_question() -> None:
    url = f"rediss+cluster://:{WRITTEN}@h1:7000,h2/0?ssl_ca_certs=/ca.pem"
    guides, options = guides_of(url), pool_of(url).connection_kwargs
    assert guides.places == [("h1", 7000), ("h2", 6379)]
    assert guides.question == ("CLUSTER", "SLOTS")
    assert guides.kind is SSLConnection
    assert options["password"] == guides.options["password"] == SECRET
    assert options["ssl_ca_certs"] == guides.options["ssl_ca_certs"] == "/ca.pem"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://:SECRET@host:port", "no URL such as redis://"),
        ("redis://:SECRET@host?no_such_option=1", "no URL such as redis://"),
        ("redis+sentinel://:SECRET@host", "name of the service is missing"),
        ("redis+sentinel://:SECRET@host/", "name of the service is missing"),
        ("redis+sentinel://:SECRET@host/name/zero", "no URL such as redis[+]sentinel://"),
        ("redis+sentinel://:SECRET@host:port/name", "no URL such as redis[+]sentinel://"),
        ("redis+sentinel://:SECRET@a,,b/name", "no URL such as redis[+]sentinel://"),
        ("redis+sentinel://:SECRET@/name", "no URL such as redis[+]sentinel://"),
        ("redis+sentinel://:SECRET@[::1/name", "no URL such as redis[+]sentinel://"),
        ("redis+cluster://:SECRET@a:1,b:70000", "no URL such as redis[+]cluster://"),
        ("redis+cluster://:SECRET@a,b/1", "only database 0"),
        ("redis+cluster://:SECRET@a,b?db=1", "only database 0"),
        ("redis+cluster://:SECRET@a?sentinel_password=SECRET", "no URL such as redis[+]cluster://"),
        ("redis+shards://:SECRET@a", "should match"),
    ],
)
def test_a_wrong_url_is_named_without_its_password(url: str, says: str) -> None:
    with pytest.raises(SetupError, match=f"VQD_REDIS_URL.*{says}") as raised:
        build_client(read_settings(redis_url=url.replace("SECRET", "hidden")))
    assert "hidden" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_no_password_stands_in_what_may_be_logged() -> None:
    for url in (f"redis+sentinel://:{WRITTEN}@a/name?sentinel_password={WRITTEN}", f"redis+cluster://:{WRITTEN}@a"):
        pool = pool_of(url)
        shown = f"{pool!r} {pool.make_connection()!r} {guides_of(url)!r}"
        assert SECRET not in shown
        assert WRITTEN not in shown


def test_all_keys_have_one_owner() -> None:
    every = [keys.CHANNEL, keys.COUNTERS, keys.WORKERS, keys.stream("m", "batch"), keys.job("x"), keys.idempotency("k")]
    assert len({key_slot(key.encode()) for key in every}) == 1


def test_answers_of_guides() -> None:
    assert named_by_sentinel([b"10.0.0.1", b"6379"], "asked") == ("10.0.0.1", 6379)
    nodes = [[0, 5, [b"10.0.0.1", 7000, b"id"]], [6, 9, [b"", 7001, b"id"], [b"replica", 7002, b"id"]]]
    assert owner_of(5, nodes, "asked") == ("10.0.0.1", 7000)
    assert owner_of(6, nodes, "asked") == ("asked", 7001)
    for wrong in (lambda: owner_of(10, nodes, "asked"), lambda: named_by_sentinel(None, "asked")):
        with pytest.raises(RedisConnectionError):
            wrong()


@pytest.mark.anyio
async def test_guides_who_are_silent_end_the_question_in_time_and_leave_nothing_behind() -> None:
    tasks, began_s = asyncio.all_tasks(), time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        guides = guides_of(f"redis+sentinel://127.0.0.1:{silent.getsockname()[1]},127.0.0.1:1/name")
        guides.limit_s = 0.2
        with pytest.raises(RedisConnectionError, match=r"SENTINEL: nobody says .*127.0.0.1:1.*; no answer in time"):
            await guides.find()
    assert time.monotonic() - began_s < 1
    assert asyncio.all_tasks() == tasks
    assert guides.address is None
