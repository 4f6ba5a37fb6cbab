"""Fixtures every test may use: a real Redis per session, emptied per test."""

import os
from collections.abc import Iterator

# The fake of Triton runs gRPC threads in this process, which also forks: gRPC's own fork handlers would now and then
# kill the child between fork and exec. Read when grpc is first imported.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

import pytest
import redis

from service.local.redis import RedisServer


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No VQD_ variable of the developer's shell reaches a test."""
    for name in [n for n in os.environ if n.startswith("VQD_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real redis-server that lives as long as the session."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture
def redis_url(redis_server: str) -> str:
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server
