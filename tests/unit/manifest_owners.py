"""Whose each rendered object is, by what it refers to; and which objects a selector typed into kubectl selects."""

import json
from collections.abc import Callable, Iterator

from manifests import Manifest, Workload, selects, workloads

NAME, COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/component"


def leads(service: Manifest, pods: Workload) -> bool:
    """Whether these pods are behind a Service; ours are named alike."""
    return bool(service["name"] == pods.name)


REFERS: dict[str, Callable[[Manifest, Workload], bool]] = {
    "Deployment": lambda it, pods: it == pods.manifest,
    "StatefulSet": lambda it, pods: it == pods.manifest,
    "HorizontalPodAutoscaler": lambda it, pods: it["spec"]["scaleTargetRef"]["name"] == pods.name,
    "ScaledObject": lambda it, pods: it["spec"]["scaleTargetRef"]["name"] == pods.name,
    "ServiceAccount": lambda it, pods: it["metadata"]["name"] == pods.pod["serviceAccountName"],
    "ConfigMap": lambda it, pods: json.dumps(it["metadata"]["name"]) in json.dumps(pods.pod),
    "Service": lambda it, pods: selects({"matchLabels": it["spec"]["selector"]}, pods.labels),
    "Ingress": lambda it, pods: leads(it["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"], pods),
    "HTTPRoute": lambda it, pods: leads(it["spec"]["rules"][0]["backendRefs"][0], pods),
    "PodDisruptionBudget": lambda it, pods: selects(it["spec"]["selector"], pods.labels),
    "PodMonitor": lambda it, pods: selects(it["spec"]["selector"], pods.labels),
    "NetworkPolicy": lambda it, pods: selects(it["spec"]["podSelector"], pods.labels),
}
"""Kind → whether an object of it is about these pods: is, runs, scales, protects, reaches or sets them up."""


def owners(manifest: Manifest, manifests: list[Manifest]) -> set[str]:
    """The components that an object is about."""
    refers = REFERS.get(manifest["kind"], lambda it, pods: False)
    return {each.labels[COMPONENT] for each in workloads(manifests) if refers(manifest, each)}


def labels_of(manifest: Manifest) -> dict[str, str]:
    labels: dict[str, str] = manifest["metadata"].get("labels", {})
    return labels


def labelled(manifests: list[Manifest]) -> Iterator[str]:
    """Every object is known as ours, and as one component's where it is that one's alone."""
    for manifest in manifests:
        what, labels = f"{manifest['kind']} {manifest['metadata']['name']}", labels_of(manifest)
        if labels.get(NAME) != "vqd":
            yield f"{what} is not known as ours"
        found = owners(manifest, manifests)
        expected = next(iter(found)) if len(found) == 1 else None
        if found and labels.get(COMPONENT) != expected:
            yield f"{what} concerns {', '.join(sorted(found))} and is labelled {labels.get(COMPONENT)}"


def matches(selector: str, labels: dict[str, str]) -> bool:
    """A selector as it is typed after ``kubectl -l``: ``key=value`` and ``key!=value``, joined by commas."""
    for part in selector.split(","):
        key, _, value = part.replace("!=", "=").partition("=")
        assert key, f"{part!r} is no selector that this test can read"
        assert value, f"{part!r} is no selector that this test can read"
        if (labels.get(key) == value) == ("!=" in part):
            return False
    return True
