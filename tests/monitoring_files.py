"""What k8s/monitoring says: dashboards and rules; the metrics that an expression reads, and those that there are."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
MONITORING = ROOT / "k8s/monitoring"
GPU_ROW = "GPU"
"""The collapsed row whose panels have no data on a machine without a GPU."""
KEYS_ROW = "API keys"
"""The row whose panels have no data where nobody is asked for a key."""

BUILD = {"vqd_build": ("info", {"version"})}
GATEWAY = BUILD | {
    "vqd_http_requests": ("counter", {"route", "method", "status"}),
    "vqd_http_request_seconds": ("histogram", {"route"}),
    "vqd_http_hangups": ("counter", set()),
    "vqd_http_idempotent_replays": ("counter", set()),
    "vqd_redis_up": ("gauge", set()),
    "vqd_redis_errors": ("counter", set()),
    "vqd_webhooks": ("counter", {"outcome"}),
    "vqd_storage_errors": ("counter", set()),
    "vqd_storage_seconds": ("histogram", set()),
    "vqd_unreadable_records": ("counter", {"kind"}),
    "vqd_redis_used_bytes": ("gauge", set()),
    "vqd_redis_max_bytes": ("gauge", set()),
    "vqd_queue_depth": ("gauge", {"model", "priority"}),
    "vqd_queue_oldest_seconds": ("gauge", {"model", "priority"}),
    "vqd_queue_jobs_ended": ("counter", {"outcome"}),
    "vqd_queue_fenced_writes": ("counter", set()),
    "vqd_queue_dead_letters": ("counter", set()),
    "vqd_queue_webhooks": ("gauge", set()),
    "vqd_queue_webhooks_overdue_seconds": ("gauge", set()),
    "vqd_workers": ("gauge", {"state"}),
    "vqd_key_jobs": ("counter", {"key", "name"}),
    "vqd_key_passes": ("counter", {"key", "name"}),
    "vqd_key_refused": ("counter", {"key", "name", "limit"}),
}
WORKER = BUILD | {
    "vqd_jobs": ("counter", {"outcome"}),
    "vqd_images": ("counter", set()),
    "vqd_adapted_jobs": ("counter", set()),
    "vqd_previews": ("counter", set()),
    "vqd_evaluations": ("counter", set()),
    "vqd_evaluations_repeated": ("counter", set()),
    "vqd_queue_wait_seconds": ("histogram", set()),
    "vqd_job_seconds": ("histogram", set()),
    "vqd_encode_seconds": ("histogram", set()),
    "vqd_step_seconds": ("histogram", set()),
    "vqd_decode_seconds": ("histogram", set()),
    "vqd_read_seconds": ("histogram", set()),
    "vqd_storage_errors": ("counter", set()),
    "vqd_storage_seconds": ("histogram", set()),
    "vqd_rows_per_call": ("histogram", set()),
    "vqd_rows_in_flight": ("gauge", set()),
    "vqd_busy_seconds": ("counter", set()),
    "vqd_model_seconds": ("counter", set()),
    "vqd_checkpoints": ("counter", set()),
    "vqd_resumes": ("counter", set()),
    "vqd_handovers": ("counter", set()),
    "vqd_fenced_writes": ("counter", set()),
    "vqd_redis_errors": ("counter", set()),
    "vqd_unreadable_records": ("counter", {"kind"}),
    "vqd_triton_up": ("gauge", set()),
    "vqd_triton_errors": ("counter", {"kind"}),
}
"""Every metric of ours, its type and its labels. A new one belongs here, in metrics.py and on a dashboard."""

SUFFIXES = {"counter": ("_total",), "gauge": ("",), "info": ("_info",), "histogram": ("_bucket", "_sum", "_count")}
OF_OTHERS = re.compile(r"up|ALERTS|process_(resident_memory_bytes|cpu_seconds_total|open_fds|max_fds)|nv_\w+")
"""Prometheus's own, prometheus_client's and Triton's. tests/e2e/test_monitoring_live.py shows that these exist too."""

WORDS = {"and", "or", "unless", "bool", "offset"}


@dataclass(frozen=True)
class Query:
    """One query of one panel. ``row`` is the panel's row."""

    dashboard: str
    row: str
    panel: str
    expr: str


def load(name: str) -> Any:
    return yaml.safe_load((MONITORING / name).read_text())


def dashboards() -> dict[str, dict[str, Any]]:
    """File name → dashboard."""
    return {path.name: json.loads(path.read_text()) for path in sorted((MONITORING / "dashboards").glob("*.json"))}


def panels(dashboard: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(row's title, panel) of all panels, those inside collapsed rows too."""
    row = ""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
            yield from ((row, inner) for inner in panel["panels"])
        else:
            yield row, panel


def queries() -> list[Query]:
    return [
        Query(name, row, panel["title"], target["expr"])
        for name, dashboard in dashboards().items()
        for row, panel in panels(dashboard)
        for target in panel["targets"]
    ]


def rules(kind: str) -> dict[str, dict[str, Any]]:
    """``record`` or ``alert``: the rules of that kind by name."""
    files = (load("rules/recording.yml"), load("rules/alerts.yml"))
    found = [rule for file in files for group in file["groups"] for rule in group["rules"] if kind in rule]
    return {rule[kind]: rule for rule in found}


def selectors(expr: str) -> set[str]:
    """The instant selectors in a PromQL expression: a metric's name, perhaps with matchers."""
    braces = re.findall(r"\{[^}]*\}", expr)
    rest = re.sub(r"\{[^}]*\}", "\0", expr)
    rest = re.sub(r"\[[^\]]*\]", "", rest)
    rest = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", rest)
    found, used = set(), 0
    for match in re.finditer(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?![\w:])(?!\s*\()(\0?)", rest):
        matchers = braces[used] if match[2] else ""
        used += bool(match[2])
        if match[1] not in WORDS:
            found.add(match[1] + matchers)
    return found


def metric_names(expr: str) -> set[str]:
    return {selector.partition("{")[0] for selector in selectors(expr)}


def sample_names() -> set[str]:
    """What Prometheus calls the samples of the inventory."""
    return {name + suffix for name, (kind, _) in (GATEWAY | WORKER).items() for suffix in SUFFIXES[kind]}


def unknown_metrics(expr: str) -> set[str]:
    """What an expression reads that neither we, nor our rules, nor those whom we rely on export."""
    known = sample_names() | set(rules("record"))
    return {metric for metric in metric_names(expr) - known if not OF_OTHERS.fullmatch(metric)}
