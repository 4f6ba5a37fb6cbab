"""A real Prometheus watches the real service under load: every query of every dashboard and every rule has data.

prometheus is Debian's package of that name.
"""

import json
import math
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
import yaml
from integration.gateway_harness import until
from monitoring_files import GPU_ROW, KEYS_ROW, MONITORING, Query, load, queries, rules, selectors
from picture_files import base64, file_of, noise

from service.lab.bench.cases import PROMPTS
from service.local.probe import probe
from service.local.processes import LocalServer, end, spawn
from service.local.supervisor import Supervisor
from service.sockets import free_port

LOAD_S, LOAD_LIMIT_S = 12.0, 60.0
CLIENTS = 4
WINDOW = "10s"
"""In place of Grafana's $__rate_interval."""
BUSY = "max_over_time(rate(vqd_busy_seconds_total[10s])[5m:1s])"


class PrometheusServer(LocalServer):
    """The configuration of k8s/monitoring on other addresses, and with everything done once a second."""

    name, limit_s = "prometheus", 20.0

    def __init__(self, folder: Path, targets: dict[str, str]) -> None:
        self.folder, self.log, self.address = folder, folder / "prometheus.log", f"127.0.0.1:{free_port()}"
        config = load("prometheus.yml")
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(MONITORING / pattern) for pattern in config["rule_files"]]
        for job in config["scrape_configs"]:
            job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
        self.config = folder / "prometheus.yml"
        self.config.write_text(yaml.safe_dump(config))

    def launch(self) -> None:
        options = {
            "config.file": self.config,
            "storage.tsdb.path": self.folder / "data",
            "web.listen-address": self.address,
        }
        self.process = spawn(["prometheus", *(f"--{name}={value}" for name, value in options.items())], self.log)

    def answers(self) -> bool:
        return probe(f"http://{self.address}/-/ready") is None

    def stop(self) -> None:
        end(self.process)

    def get(self, path: str, **parameters: str) -> Any:
        answer = httpx.get(f"http://{self.address}/api/v1/{path}", params=parameters, timeout=20).json()
        assert answer["status"] == "success", f"{parameters}: {answer}"
        return answer["data"]

    def values(self, expr: str) -> list[float]:
        """The numbers that an expression gives now; NaN is none."""
        data = self.get("query", query=expr.replace("$__rate_interval", WINDOW))
        found = [data["result"]] if data["resultType"] == "scalar" else [row["value"] for row in data["result"]]
        return [number for _, text in found if not math.isnan(number := float(text))]


def send(client: httpx.Client, index: int) -> None:
    """One of the things that clients do, each in its turn."""
    # Its own prompt: those that the worker knows are not encoded again.
    fields = {
        "prompt": f"{PROMPTS[index % 16]} and {PROMPTS[index // 16 % 16]}",
        "seed": index,
        "n": 1 + index % 2,
        "steps": 8,
        "tokens_per_step": 8,
    }
    headers = {"Idempotency-Key": f"{index // 4}-{time.monotonic_ns()}"}
    if index % 4 == 0:
        fields |= {"priority": "batch", "image": base64(file_of(noise(32, 32, index)))}
    for _ in range(1 + index % 4 // 3):  # one in four asks twice
        assert client.post("/generate", json=fields, headers=headers).status_code == httpx.codes.OK
    if index % 4 == 2:
        asked = client.post("/generate", json=fields, headers={"Prefer": "respond-async"})
        client.delete(f"/jobs/{asked.json()['id']}")


def press(url: str, enough: Event, client_index: int) -> None:
    with httpx.Client(base_url=url, timeout=60) as client:
        index = client_index
        while not enough.is_set():
            send(client, index)
            index += 1


def loaded(server: PrometheusServer) -> bool:
    """Whether the worker had hardly a pause for as long as a window; on a busy machine, clients make pauses."""
    return any(busy > 0.8 for busy in server.values(BUSY))


@pytest.fixture(scope="module")
def prometheus(supervisor: Supervisor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """One that has watched the service under load for a little more than a window."""
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus: apt-get install prometheus")
    targets = {
        job: url.removeprefix("http://").removesuffix("/metrics") for job, url in metrics_urls(supervisor).items()
    }
    with PrometheusServer(tmp_path_factory.mktemp("prometheus"), targets) as server:
        until(lambda: server.values("sum(up)") == [len(targets)], LOAD_LIMIT_S)  # each was seen at rest
        began_s, enough = time.monotonic(), Event()
        with ThreadPoolExecutor(CLIENTS) as pool:
            pressing = [pool.submit(press, supervisor.url, enough, index) for index in range(CLIENTS)]
            try:
                until(lambda: time.monotonic() > began_s + LOAD_S and loaded(server), LOAD_LIMIT_S, pause_s=0.5)
            finally:
                enough.set()
        for client in pressing:
            client.result()
        yield server


def metrics_urls(supervisor: Supervisor) -> dict[str, str]:
    (triton,) = (part.server for part in supervisor.parts if part.name == "triton")
    worker = f"http://127.0.0.1:{supervisor.environment['VQD_WORKER_METRICS_PORT']}/metrics"
    return {"gateway": f"{supervisor.url}/metrics", "worker": worker, "triton": triton.metrics_url}


def name_of(query: Query) -> str:
    return f"{query.dashboard}: {query.row}: {query.panel}: {query.expr}"


def test_every_dashboard_query_has_data(prometheus: PrometheusServer) -> None:
    shown = [query for query in queries() if query.row not in (GPU_ROW, KEYS_ROW)]
    found = {name_of(query): prometheus.values(query.expr) for query in shown}
    assert [name for name, values in found.items() if not values] == []


@pytest.mark.parametrize("row", [GPU_ROW, KEYS_ROW])
def test_queries_without_data_here_are_well_formed(prometheus: PrometheusServer, row: str) -> None:
    """No GPU, and no keys; tests/unit/test_key_metrics.py has the series of those."""
    without = [query for query in queries() if query.row == row]
    assert without
    for query in without:
        prometheus.values(query.expr)


@pytest.mark.parametrize("record", rules("record"))
def test_every_recording_rule_has_data(prometheus: PrometheusServer, record: str) -> None:
    assert prometheus.values(record)


@pytest.mark.parametrize("alert", rules("alert"))
def test_every_alert_sees_what_it_looks_at(prometheus: PrometheusServer, alert: str) -> None:
    expr = rules("alert")[alert]["expr"]
    prometheus.values(expr)
    looked_at = [selector for selector in sorted(selectors(expr)) if not selector.startswith("vqd_key_")]
    assert [selector for selector in looked_at if not prometheus.values(selector)] == []


def test_every_rule_is_healthy_and_no_alert_fires(prometheus: PrometheusServer) -> None:
    groups = prometheus.get("rules")["groups"]
    loaded = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert set(loaded) == set(rules("record")) | set(rules("alert"))
    assert {name: rule.get("lastError") for name, rule in loaded.items() if rule["health"] != "ok"} == {}
    assert [name for name, rule in loaded.items() if rule.get("state") == "firing"] == []


def test_the_numbers_are_plausible(prometheus: PrometheusServer) -> None:
    """Not only something: what the load did."""
    (efficiency,) = prometheus.values("instance:vqd_efficiency:ratio_rate5m")
    (busy,) = prometheus.values(BUSY)
    assert 0.3 < efficiency <= 1.01
    assert 0.8 < busy <= 1.05
    assert prometheus.values("vqd:generate_errors:ratio_rate5m") == [0]
    expected = {
        'increase(vqd_queue_jobs_ended_total{outcome="succeeded"}[5m])': CLIENTS,
        'increase(vqd_queue_jobs_ended_total{outcome="cancelled"}[5m])': 1,
        "increase(vqd_http_idempotent_replays_total[5m])": 1,
        "increase(vqd_images_total[5m])": CLIENTS,
        "max_over_time(vqd_rows_in_flight[5m])": 2,
        'max_over_time(vqd_queue_depth{priority="batch"}[5m])': 1,
    }
    found = {expr: prometheus.values(expr) for expr in expected}
    assert {expr: values for expr, values in found.items() if not values or max(values) < expected[expr]} == {}, (
        json.dumps(found, indent=1)
    )
