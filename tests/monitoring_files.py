"""What k8s/monitoring says: dashboards, rules, and the metrics that an expression reads."""

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
