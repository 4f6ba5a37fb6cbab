"""Promise 17, never scaled to zero with work in flight: the rendered trigger, asked of a real Prometheus that scrapes
two real gateways, on a real Redis."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from both_sides import JobQueue
from fleet import Fleet
from gateway_harness import MODEL, until
from manifests import K8S, Manifest, find, render

from service.local.processes import spawn
from service.messages import Priority, Status
from service.queue import keys
from service.sockets import free_port

PROMETHEUS = shutil.which("prometheus")
SCRAPE = """
global: {{scrape_interval: 500ms, scrape_timeout: 500ms}}
scrape_configs:
  - job_name: gateway
    static_configs: [{{targets: {targets}}}]
"""


@pytest.fixture
def scaler() -> Manifest:
    spec: Manifest = find(render(K8S / "overlays/gpu"), "ScaledObject", "vqd-inference")["spec"]
    return spec


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(redis_url, tmp_path)
    yield fleet
    fleet.close()


def start_prometheus(fleet: Fleet, gateway_ports: list[int]) -> str:
    """Its address; the fleet ends it."""
    address = f"127.0.0.1:{free_port()}"
    config = fleet.folder / "prometheus.yml"
    config.write_text(SCRAPE.format(targets=[f"127.0.0.1:{port}" for port in gateway_ports]))
    options = [f"--config.file={config}", f"--storage.tsdb.path={fleet.folder / 'tsdb'}"]
    command = [str(PROMETHEUS), *options, f"--web.listen-address={address}"]
    fleet.others.append(spawn(command, fleet.folder / "prometheus.log"))
    return f"http://{address}"


def ask(prometheus: str, query: str) -> list[float]:
    """The values of an instant query; [] while Prometheus starts."""
    try:
        response = httpx.get(f"{prometheus}/api/v1/query", params={"query": query})
    except httpx.TransportError:
        return []
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return []
    answer: Any = response.json()
    return [float(sample["value"][1]) for sample in answer["data"]["result"]]


def pods(scaler: Manifest, value: float) -> int:
    """What KEDA and the HPA that it makes want for a trigger's value of type AverageValue."""
    (trigger,) = scaler["triggers"]
    assert trigger["metricType"] == "AverageValue"
    wanted = math.ceil(value / float(trigger["metadata"]["threshold"]))
    return int(max(scaler["minReplicaCount"], min(wanted, scaler["maxReplicaCount"])))


def test_17_an_empty_queue_and_a_silent_prometheus_keep_a_worker(scaler: Manifest) -> None:
    (trigger,) = scaler["triggers"]
    assert pods(scaler, 0) == 1
    assert pods(scaler, 25) == 2
    assert pods(scaler, 10_000) == scaler["maxReplicaCount"]
    assert trigger["metadata"]["ignoreNullValues"] == "false", "no data would count as no work"


@pytest.mark.skipif(PROMETHEUS is None, reason="needs Debian's package: apt-get install prometheus")
def test_17_the_trigger_counts_running_jobs_once(fleet: Fleet, scaler: Manifest) -> None:
    query = scaler["triggers"][0]["metadata"]["query"]
    ports = [free_port(), free_port()]
    for port in ports:
        fleet.start_gateway(port)
    fleet.start_worker()
    prometheus = start_prometheus(fleet, ports)
    until(lambda: ask(prometheus, "sum(up)") == [2.0], limit_s=30)
    fleet.triton.delay_s = 0.02
    jobs = [fleet.submit(seed=seed, steps=50, priority=priority) for seed, priority in enumerate(Priority)]
    for job in jobs:
        fleet.wait(job, Status.RUNNING)
    fleet.triton.hang()

    until(lambda: ask(prometheus, "sum by (instance) (vqd_queue_depth)") == [2.0, 2.0])
    assert ask(prometheus, query) == [2.0]
    assert [fleet.view(job).status for job in jobs] == [Status.RUNNING] * 2
    assert fleet.ask(unread) == [0, 0], "a trigger on the streams' lag would see no work"

    fleet.triton.resume()
    for job in jobs:
        fleet.wait(job)
    until(lambda: ask(prometheus, query) == [0.0])


async def unread(queue: JobQueue) -> list[int]:
    """Entries that nobody has read yet, per class: what Redis 7 calls the group's lag, and 6.2 does not tell."""
    counts = []
    for priority in Priority:
        stream = keys.stream(MODEL.name, priority.value)
        (group,) = await queue.redis.xinfo_groups(stream)
        counts.append(len(await queue.redis.xrange(stream, f"({group['last-delivered-id'].decode()}")))
    return counts
