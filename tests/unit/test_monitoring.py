"""Metrics, rules and dashboards agree with each other, and promtool agrees with the rules.

promtool comes with Debian's package ``prometheus``.
"""

import re
import shutil
import subprocess
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from monitoring_files import GATEWAY, MONITORING, ROOT, WORKER, load, rules, selectors, unknown_metrics
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric

from service.gateway.app import create_app
from service.settings import Settings
from service.telemetry.metrics import GatewayMetrics, QueueState, WallTime, WorkerMetrics

RUNBOOKS = "https://github.com/example/vqd/blob/main/k8s/monitoring/README.md"
STATE = QueueState({"ready": 1}, {"m": {"batch": 2}}, {"m": {"interactive": 3.5}}, {"failed": 4}, 5, 6, 7, 8, 9, 10.5)


@pytest.fixture
def gateway() -> GatewayMetrics:
    """As a gateway has them that was scraped once; the series of keys begin when one is used."""
    metrics: GatewayMetrics = create_app(Settings()).state.gateway.metrics
    metrics.queue.state = STATE
    metrics.by_key.accept("k1", "web", passes=0)
    return metrics


@pytest.fixture
def worker() -> WorkerMetrics:
    return WorkerMetrics(CollectorRegistry())


def families(registry: CollectorRegistry) -> dict[str, Metric]:
    return {family.name: family for family in registry.collect() if family.name.startswith("vqd_")}


def described(family: Metric) -> tuple[str, set[str]]:
    return family.type, {label for sample in family.samples for label in sample.labels} - {"le"}


# The metrics themselves


def test_the_inventory_is_what_the_processes_export(gateway: GatewayMetrics, worker: WorkerMetrics) -> None:
    assert {name: described(family) for name, family in families(gateway.registry).items()} == GATEWAY
    assert {name: described(family) for name, family in families(worker.registry).items()} == WORKER


def test_every_label_set_begins_at_zero(gateway: GatewayMetrics, worker: WorkerMetrics) -> None:
    for registry in (gateway.registry, worker.registry):
        assert [name for name, family in families(registry).items() if not family.samples] == []
    text = generate_latest(gateway.registry).decode()
    for status in (200, 401, 403, 429, 500, 503):
        assert f'vqd_http_requests_total{{method="POST",route="/generate",status="{status}"}} 0.0' in text
    assert 'vqd_http_request_seconds_count{route="/jobs/{job_id}/events"} 0.0' in text
    text = generate_latest(worker.registry).decode()
    for kind in ("unavailable", "timeout", "invalid"):
        assert f'vqd_triton_errors_total{{kind="{kind}"}} 0.0' in text


def test_names_and_help_follow_the_rules(gateway: GatewayMetrics, worker: WorkerMetrics) -> None:
    for name, family in (families(gateway.registry) | families(worker.registry)).items():
        assert not re.search(r"_(ms|us|minutes|percent|kb|mb)$", name), name
        assert family.documentation.endswith("."), name


def test_a_client_cannot_make_up_label_values(gateway: GatewayMetrics) -> None:
    before = len(families(gateway.registry)["vqd_http_requests"].samples)
    for method in ("BREW", "MAKE-ME-A-SERIES"):
        gateway.count_request("unmatched", method, 405, 0.1)
    after = families(gateway.registry)["vqd_http_requests"].samples
    assert {
        sample.value for sample in after if sample.labels["method"] == "other" and sample.name.endswith("_total")
    } == {2}
    assert len(after) == before + 2  # the count, and when it was created


def test_buckets_fit_the_work(gateway: GatewayMetrics, worker: WorkerMetrics) -> None:
    def bounds(registry: CollectorRegistry, name: str) -> list[float]:
        samples = families(registry)[name].samples
        return sorted({float(sample.labels["le"]) for sample in samples if sample.name.endswith("_bucket")})

    request, step = bounds(gateway.registry, "vqd_http_request_seconds"), bounds(worker.registry, "vqd_step_seconds")
    assert (request[0], request[-2]) == (0.05, 600)
    assert (step[0], step[-2]) == (0.001, 10)
    for edges in (request[:-1], step[:-1]):
        assert max(high / low for low, high in pairwise(edges)) <= 2.5


def test_nothing_is_told_about_a_queue_that_cannot_be_asked(gateway: GatewayMetrics) -> None:
    gateway.queue.state = None
    found = families(gateway.registry)
    assert {name for name, family in found.items() if not family.samples} == {
        *(name for name in GATEWAY if name.startswith("vqd_queue_")),
        *("vqd_workers", "vqd_redis_used_bytes", "vqd_redis_max_bytes"),
    }


def test_the_state_of_the_queue_is_exported(gateway: GatewayMetrics) -> None:
    lines = generate_latest(gateway.registry).decode().splitlines()
    assert {
        'vqd_queue_depth{model="m",priority="batch"} 2.0',
        'vqd_queue_depth{model="m",priority="interactive"} 0.0',
        'vqd_queue_oldest_seconds{model="m",priority="interactive"} 3.5',
        'vqd_queue_jobs_ended_total{outcome="failed"} 4.0',
        'vqd_queue_jobs_ended_total{outcome="succeeded"} 0.0',
        'vqd_workers{state="ready"} 1.0',
        'vqd_workers{state="draining"} 0.0',
        "vqd_queue_fenced_writes_total 5.0",
        "vqd_queue_dead_letters_total 6.0",
        "vqd_redis_used_bytes 7.0",
        "vqd_redis_max_bytes 8.0",
        "vqd_queue_webhooks 9.0",
        "vqd_queue_webhooks_overdue_seconds 10.5",
    } <= set(lines)


def test_every_metric_is_touched_where_something_happens(gateway: GatewayMetrics, worker: WorkerMetrics) -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "service").rglob("*.py"))
    for metrics in (gateway, worker):
        for name, value in vars(metrics).items():
            if isinstance(value, Counter | Gauge | Histogram | WallTime):
                used = rf"metrics\.{name}\b|self\.{name}\.labels\([^)]*\)\.(inc|observe|set)"
                assert re.search(used, code), f"nothing ever touches {name}"


def test_wall_time_counts_once_however_many_are_inside() -> None:
    counter = Counter("vqd_test_seconds", "A test's.", registry=CollectorRegistry())
    clock, began = WallTime(counter), time.monotonic()
    with clock:
        with clock:
            time.sleep(0.05)
        time.sleep(0.05)
        clock.tick()
        so_far = value(counter)
    inside = time.monotonic() - began
    time.sleep(0.05)
    clock.tick()
    assert 0.1 <= so_far <= value(counter) <= inside


def value(counter: Counter) -> float:
    return next(s.value for family in counter.collect() for s in family.samples if s.name.endswith("_total"))


# Rules and alerts


def run_promtool(*arguments: str | Path) -> None:
    """Skips, and says why, where there is no promtool."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool: apt-get install prometheus")
    result = subprocess.run([promtool, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_promtool_accepts_the_configuration() -> None:
    run_promtool("check", "config", MONITORING / "prometheus.yml")


@pytest.mark.parametrize("name", ["recording.yml", "alerts.yml"])
def test_promtool_accepts_the_rules(name: str) -> None:
    run_promtool("check", "rules", MONITORING / "rules" / name)


@pytest.mark.parametrize("path", sorted((MONITORING / "rules/tests").glob("*.yml")), ids=lambda path: path.stem)
def test_the_rules_do_what_their_tests_say(path: Path) -> None:
    run_promtool("test", "rules", path)


def alert_cases() -> list[dict[str, Any]]:
    files = [yaml.safe_load(path.read_text()) for path in (MONITORING / "rules/tests").glob("*.yml")]
    return [case for file in files for test in file["tests"] for case in test.get("alert_rule_test", [])]


@pytest.mark.parametrize("alert", rules("alert"))
def test_every_alert_has_a_firing_and_a_quiet_case(alert: str) -> None:
    outcomes = {bool(case["exp_alerts"]) for case in alert_cases() if case["alertname"] == alert}
    assert outcomes == {True, False}


def test_no_case_is_about_an_alert_that_does_not_exist() -> None:
    assert {case["alertname"] for case in alert_cases()} == set(rules("alert"))


@pytest.mark.parametrize("alert", rules("alert"))
def test_every_alert_tells_what_to_do(alert: str) -> None:
    rule = rules("alert")[alert]
    assert rule["labels"] == {"severity": rule["labels"]["severity"]}
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "runbook", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"{RUNBOOKS}#{alert.lower()}"
    assert re.search(r"\b[Ll]ook (at|in)\b", rule["annotations"]["runbook"]), "the first thing to look at"


def test_the_runbook_page_has_every_alert() -> None:
    """After a change: python k8s/monitoring/prometheusrule.py."""
    page = (MONITORING / "README.md").read_text()
    told = dict(re.findall(r"^## (\w+)\n\n(.+?)(?=\n## |\Z)", page, re.DOTALL | re.MULTILINE))
    assert told.keys() == rules("alert").keys()
    for alert, rule in rules("alert").items():
        for text in (rule["labels"]["severity"], rule["annotations"]["summary"], rule["annotations"]["runbook"]):
            shown = re.sub(r"{{ \$labels\.(\w+) }}", lambda label: label[1].upper(), text.strip())
            assert shown in told[alert].replace("\n", " "), alert


def test_the_rules_read_only_what_exists() -> None:
    for name, rule in (rules("record") | rules("alert")).items():
        unknown = unknown_metrics(rule["expr"])
        assert not unknown, f"{name} reads {unknown}"


def test_kubernetes_has_the_same_rules() -> None:
    """After a change: python k8s/monitoring/prometheusrule.py."""
    rule = load("prometheusrule.yaml")
    files = (load("rules/recording.yml"), load("rules/alerts.yml"))
    assert rule["spec"]["groups"] == [group for file in files for group in file["groups"]]


def test_both_ways_to_scrape_give_the_same_jobs() -> None:
    jobs = {job["job_name"] for job in load("prometheus.yml")["scrape_configs"]}
    monitors = yaml.safe_load_all((MONITORING / "podmonitors.yaml").read_text())
    endpoints = [endpoint for monitor in monitors for endpoint in monitor["spec"]["podMetricsEndpoints"]]
    assert [endpoint["relabelings"][0]["targetLabel"] for endpoint in endpoints] == ["job"] * len(endpoints)
    assert {endpoint["relabelings"][0]["replacement"] for endpoint in endpoints} == jobs


def test_selectors_are_found() -> None:
    expr = 'sum by (le) (rate(a_bucket{x=~"b|c"}[5m])) / 1e6 > 14.4 * scalar(d:e) and absent(up{job="f"} == 1)'
    assert selectors(expr) == {'a_bucket{x=~"b|c"}', "d:e", 'up{job="f"}'}
