"""Dashboards explain themselves, read only what exists, and leave no metric out."""

import pytest
from monitoring_files import (
    GATEWAY,
    GPU_ROW,
    SUFFIXES,
    WORKER,
    dashboards,
    load,
    metric_names,
    panels,
    queries,
    rules,
    unknown_metrics,
)


@pytest.mark.parametrize("name", dashboards())
def test_every_panel_explains_itself(name: str) -> None:
    for row, panel in panels(dashboards()[name]):
        defaults = panel["fieldConfig"]["defaults"]
        where = f"{name}: {row}: {panel['title']}"
        assert len(panel["description"]) > 20, where
        assert defaults["unit"], where
        assert defaults["thresholds"]["steps"], where
        assert panel["datasource"]["uid"] == "${datasource}", where


@pytest.mark.parametrize("name", dashboards())
def test_a_dashboard_is_laid_out_without_overlap(name: str) -> None:
    board = dashboards()[name]
    identities = [panel["id"] for panel in board["panels"]] + [
        p["id"] for row in board["panels"] for p in row.get("panels", [])
    ]
    assert len(set(identities)) == len(identities)
    taken = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_only_the_gpu_row_is_collapsed() -> None:
    rows = [panel for board in dashboards().values() for panel in board["panels"] if panel["type"] == "row"]
    assert [row["title"] for row in rows if row["collapsed"]] == [GPU_ROW]


def test_dashboards_read_only_what_exists() -> None:
    for query in queries():
        unknown = unknown_metrics(query.expr)
        assert not unknown, f"{query.dashboard}: {query.panel} reads {unknown}"


def test_every_metric_is_on_a_dashboard() -> None:
    shown = {metric for query in queries() for metric in metric_names(query.expr)}
    shown |= {metric for name in shown & set(rules("record")) for metric in metric_names(rules("record")[name]["expr"])}
    hidden = {
        name
        for name, (kind, _) in (GATEWAY | WORKER).items()
        if not any(name + suffix in shown for suffix in SUFFIXES[kind])
    }
    assert hidden == set()


def test_kubernetes_and_grafana_get_every_dashboard() -> None:
    (generator,) = load("kustomization.yaml")["configMapGenerator"]
    assert sorted(generator["files"]) == [f"dashboards/{name}" for name in dashboards()]
    assert len({board["uid"] for board in dashboards().values()}) == len(dashboards())
    (source,) = load("grafana/datasources.yml")["datasources"]
    assert source["jsonData"]["timeInterval"] == load("prometheus.yml")["global"]["scrape_interval"]
