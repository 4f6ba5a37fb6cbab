"""Writes what is said twice: the rules in the Prometheus Operator's form, and the page that runbook_url leads to.

After a change of rules/*.yml: python k8s/monitoring/prometheusrule.py.
"""

import re
import textwrap
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
NOTE = "# Written by prometheusrule.py from rules/*.yml; a test compares them.\n"
HEAD = """# Alerts

What each alert of `k8s/monitoring/rules/alerts.yml` means, and what to look at first. Its annotation `runbook_url`
leads here; put your own address of this page there. `page` is for a person now, `ticket` for working hours.
(Written by `k8s/monitoring/prometheusrule.py`.)
"""


def groups(*names: str) -> list[dict[str, Any]]:
    return [group for name in names for group in yaml.safe_load((HERE / "rules" / name).read_text())["groups"]]


def prometheus_rule() -> dict[str, Any]:
    kind = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule"}
    return {**kind, "metadata": {"name": "vqd"}, "spec": {"groups": groups("recording.yml", "alerts.yml")}}


def page() -> str:
    rules = [rule for group in groups("alerts.yml") for rule in group["rules"]]
    return "\n".join([HEAD, *map(section, rules)])


def section(rule: dict[str, Any]) -> str:
    notes = rule["annotations"]
    told = f"{notes['summary'].strip()} (`{rule['labels']['severity']}`)\n{notes['runbook'].strip()}"
    told = re.sub(r"{{ \$labels\.(\w+) }}", lambda label: label[1].upper(), told)
    wrapped = [textwrap.fill(line, 120, break_long_words=False, break_on_hyphens=False) for line in told.split("\n")]
    return f"## {rule['alert']}\n\n" + "\n\n".join(wrapped) + "\n"


if __name__ == "__main__":
    text = yaml.safe_dump(prometheus_rule(), sort_keys=False, width=120, allow_unicode=True)
    (HERE / "prometheusrule.yaml").write_text(NOTE + text)
    (HERE / "README.md").write_text(page())
