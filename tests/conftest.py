"""Fixtures every test may use: a real Redis per process of pytest, emptied per test. And which process runs what."""

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

# Tests run beside each other, and torch's threads wait for each other busily. Read when torch is first imported, here
# and in every process that a test starts.
os.environ["OMP_NUM_THREADS"] = "1"
# The fake of Triton runs gRPC threads in this process, which also forks: gRPC's own fork handlers would now and then
# kill the child between fork and exec. Read when grpc is first imported.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

import pytest
import redis
from xdist.scheduler import LoadScopeScheduling

from service.local.redis import RedisServer

SHARE_NOTHING = ("tests/e2e/test_recipe.py", "tests/e2e/test_triton_server.py")


class Together(LoadScopeScheduling):
    """What shares a server or a model runs in one process: the tests of a file, and nearly all of tests/e2e."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "e2e" if file.startswith("tests/e2e/") and file not in SHARE_NOTHING else file

    def remove_node(self, node: Any) -> str | None:
        """What a process died of has failed: in the process that takes its place it would only end that one too."""
        units = self.assigned_work.get(node, {}).values()
        died_of = next(((unit, test) for unit in units for test, done in unit.items() if not done), None)
        if died_of:
            unit, test = died_of
            unit[test] = True
        super().remove_node(node)
        return died_of and test


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    return Together(config, log)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
async def one_loop(anyio_backend: str) -> AsyncIterator[None]:
    """For all asynchronous tests: gRPC may have a last word for it when a test is over."""
    yield  # noqa: PT022  it is kept until here


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No VQD_ variable of the developer's shell reaches a test."""
    for name in [n for n in os.environ if n.startswith("VQD_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real redis-server that lives as long as the session."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("appendfsync", "no")  # or it waits for a disk that other tests write models to
        yield server.url


@pytest.fixture
def redis_url(redis_server: str) -> str:
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server
