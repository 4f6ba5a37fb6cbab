"""The Redis container of k8s/base, its command, file and probes, with a real redis-server in place of the image."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from gateway_harness import until
from manifests import K8S, Manifest, of_kind, render, workload

from service.local.processes import end, spawn
from service.local.redis import find_redis_server
from service.sockets import free_port


@dataclass(frozen=True)
class Container:
    """What runs as the container would, under a free port and with its two folders in a temporary one."""

    spec: Manifest
    port: int
    environment: dict[str, str]

    def probe(self, kind: str) -> int:
        """Its exit status; 0 is success."""
        command = [
            part.replace("redis-cli", f"redis-cli -p {self.port}") for part in self.spec[kind]["exec"]["command"]
        ]
        line = command if command[0] == "sh" else ["sh", "-c", " ".join(command)]
        environment = os.environ | self.environment
        return subprocess.run(line, env=environment, capture_output=True, timeout=10, check=False).returncode

    def client(self, password: str | None) -> redis.Redis:
        return redis.Redis(port=self.port, password=password, socket_timeout=1)


@pytest.fixture(params=[None, "correct horse"])
def password(request: pytest.FixtureRequest) -> str | None:
    secret: str | None = request.param
    return secret


@pytest.fixture
def container(tmp_path: Path, password: str | None) -> Iterator[Container]:
    manifests = render(K8S / "base")
    spec = workload(manifests, "vqd-redis").container("redis")
    (config,) = [c["data"]["redis.conf"] for c in of_kind(manifests, "ConfigMap") if "redis.conf" in c["data"]]
    port = free_port()
    config = config.replace("dir /data", f"dir {tmp_path}").replace("bind * -::*", "bind 127.0.0.1")
    (tmp_path / "redis.conf").write_text(f"{config}\nport {port}\n")
    environment = {"PATH": f"{Path(find_redis_server()).parent}:{os.environ['PATH']}"}
    environment |= {} if password is None else {"REDISCLI_AUTH": password}
    arguments = [argument.replace("/etc/redis", str(tmp_path)) for argument in spec["args"]]
    process = spawn([*spec["command"], *arguments], tmp_path / "log", environment)
    yield Container(spec, port, environment)
    end(process)


def test_it_starts_is_probed_and_keeps_what_it_is_told(container: Container, password: str | None) -> None:
    until(lambda: container.probe("readinessProbe") == 0)
    assert [container.probe(kind) for kind in ("startupProbe", "livenessProbe")] == [0, 0]
    with container.client(password) as client:
        settings = client.config_get("maxmemory*")
        assert (settings["maxmemory"], settings["maxmemory-policy"]) == (str(640 * 2**20), "noeviction")
        assert client.config_get("appendonly") == {"appendonly": "yes"}


def test_a_password_is_asked_for_where_one_is_set(container: Container, password: str | None) -> None:
    until(lambda: container.probe("readinessProbe") == 0)
    with container.client(None) as stranger:
        if password is None:
            assert stranger.ping()
        else:
            with pytest.raises(redis.AuthenticationError):
                stranger.ping()


@pytest.mark.parametrize("password", [None], indirect=True)
def test_a_server_that_answers_with_an_error_is_alive_and_not_ready(container: Container) -> None:
    """As one does while it loads its file."""
    until(lambda: container.probe("readinessProbe") == 0)
    with container.client(None) as client:
        client.config_set("requirepass", "another")
    assert container.probe("livenessProbe") == 0
    assert container.probe("readinessProbe") != 0
