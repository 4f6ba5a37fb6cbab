"""Writes prometheusrule.yaml, the rules in the Prometheus Operator's form: python k8s/monitoring/prometheusrule.py."""

from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
NOTE = "# Written by prometheusrule.py from rules/*.yml; a test compares them.\n"


def prometheus_rule() -> dict[str, Any]:
    files = (HERE / "rules/recording.yml", HERE / "rules/alerts.yml")
    groups = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    kind = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule"}
    return {**kind, "metadata": {"name": "vqd"}, "spec": {"groups": groups}}


if __name__ == "__main__":
    text = yaml.safe_dump(prometheus_rule(), sort_keys=False, width=120, allow_unicode=True)
    (HERE / "prometheusrule.yaml").write_text(NOTE + text)
