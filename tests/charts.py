"""The Helm chart, rendered by Helm's own library, and made comparable with what kustomize renders."""

import re
from typing import Any

import helm_python
import yaml
from manifests import K8S, Manifest

CHART = K8S / "chart"
HELMS = ("app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart")
"""Labels that every chart gives its objects, and kustomize does not."""
HASHED = re.compile(r"(vqd-settings|vqd-redis)-[a-z0-9]{10}\b")
"""A ConfigMap as kustomize names it. Helm's keep their names; a checksum in the pods' annotations rolls them."""
UNORDERED = ("env", "volumes", "volumeMounts")
Values = dict[str, Any]


def values(name: str) -> Values:
    """One of the chart's files of values."""
    read: Values = yaml.safe_load((CHART / name).read_text())
    return read


def helm_template(given: Values, release: str = "vqd") -> list[Manifest]:
    """What `helm template` prints. Raises HelmValuesError for what the schema refuses."""
    with helm_python.Chart.load(CHART) as chart:
        texts = chart.render(given, name=release, namespace="vqd")
    documents = [yaml.safe_load_all(text) for name, text in texts.items() if name.endswith(".yaml")]
    return [manifest for manifests in documents for manifest in manifests if manifest]


def comparable(manifests: list[Manifest]) -> dict[tuple[str, str], Manifest]:
    """(kind, name) → object, without what Helm and kustomize must say differently."""
    plain = [bare(manifest) for manifest in manifests]
    return {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in plain}


def bare(part: Any) -> Any:
    """Without Helm's labels and checksums, and without kustomize's hashes; lists of names in the order of the names."""
    if isinstance(part, str):
        return HASHED.sub(r"\1", part)
    if isinstance(part, list):
        return [bare(each) for each in part]
    if not isinstance(part, dict):
        return part
    kept = {key: bare(value) for key, value in part.items() if key not in HELMS and not key.startswith("checksum/")}
    for key in UNORDERED & kept.keys():
        kept[key] = sorted(kept[key], key=lambda each: str(each["name"]) + str(each.get("mountPath")))
    return {key: value for key, value in kept.items() if key not in ("annotations", "matchLabels") or value}
