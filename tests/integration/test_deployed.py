"""The gateway as Kubernetes and compose start it: by their own variables, with a real key file and a real Redis."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from fleet import Fleet, serving
from gateway_harness import until
from manifests import K8S, ROOT, of_kind, render, workload

from service.gateway.access.key_file import make_key_file, read_tokens
from service.sockets import free_port

ELSEWHERE = ("port", "metrics_port", "worker_metrics_port", "key_file", "redis_url", "triton_url", "repository")
"""Addresses and files, which are this machine's here."""


def kubernetes() -> dict[str, str]:
    manifests = render(K8S / "base")
    (settings,) = [
        m["data"] for m in of_kind(manifests, "ConfigMap") if m["metadata"]["name"].startswith("vqd-settings")
    ]
    container = workload(manifests, "vqd-gateway").container("gateway")
    return settings | {v["name"]: v["value"] for v in container["env"] if "value" in v}


def compose() -> dict[str, str]:
    variables: dict[str, str] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["gateway"][
        "environment"
    ]
    return variables


@pytest.fixture(params=[kubernetes, compose], ids=lambda where: where.__name__)
def fleet(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> Iterator[Fleet]:
    told = {name.removeprefix("VQD_").lower(): value for name, value in request.param().items()}
    assert {"host", "key_file", "metrics_port"} <= told.keys()
    kept = {name: value for name, value in told.items() if name not in ELSEWHERE}
    make_key_file(tmp_path / "keys")
    started = Fleet(redis_url, tmp_path, **kept, key_file=tmp_path / "keys", metrics_port=free_port())
    yield started
    started.close()


def test_the_key_opens_it_probes_need_none_and_metrics_are_on_their_own_port(fleet: Fleet, tmp_path: Path) -> None:
    (key,) = read_tokens(tmp_path / "keys")
    of_a_pod = {"Host": "10.1.2.3:8080"}
    with serving(fleet, "/healthz") as client:
        assert client.get("/healthz", headers=of_a_pod).status_code == 200
        assert client.get("/readyz", headers=of_a_pod).status_code == 503, "there is no worker"
        for path in ("/v1/models", "/metrics"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"Authorization": f"Bearer {key}"}).status_code == 200
        scrapes = f"http://127.0.0.1:{fleet.environment['VQD_METRICS_PORT']}/metrics"
        until(lambda: "\nvqd_redis_up 1.0\n" in httpx.get(scrapes).text, limit_s=20)
    logs = [path.read_text() for path in tmp_path.glob("*.log")]
    assert logs
    assert not any(key in text for text in logs)
