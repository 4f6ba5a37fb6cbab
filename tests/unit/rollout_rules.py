"""What a rollout needs, so that callers do not notice it and a changed setting makes one."""

import re
from collections.abc import Iterator

from manifests import Manifest, of_kind, selects, workloads


def seamless(manifests: list[Manifest]) -> Iterator[str]:
    """A new pod is ready, and proven to stay so, before an old one goes; proxies hear of that before it closes."""
    for each in workloads(manifests):
        if each.manifest["kind"] != "Deployment":
            continue
        rolling_update = each.spec["strategy"]["rollingUpdate"]
        if rolling_update != {"maxSurge": 1, "maxUnavailable": 0}:
            yield f"{each.name} loses a pod before it has the next: {rolling_update}"
        services = [service["spec"]["selector"] for service in of_kind(manifests, "Service")]
        called = any(selects({"matchLabels": selector}, each.labels) for selector in services)
        for container in each.pod["containers"]:
            slept_s = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            if called and slept_s < 5:
                yield f"{each.name} closes while proxies still send"
        if not called and each.spec.get("minReadySeconds", 0) < 5:
            yield f"{each.name} counts before anyone can have heard of it"


def rolling(manifests: list[Manifest]) -> Iterator[str]:
    """Every ConfigMap that a pod reads is there, under a name that changes with its content."""
    there = {config["metadata"]["name"] for config in of_kind(manifests, "ConfigMap")}
    for each in workloads(manifests):
        sources = [source for c in each.containers for source in c.get("envFrom", [])]
        read = [source["configMapRef"]["name"] for source in sources if "configMapRef" in source]
        read += [volume["configMap"]["name"] for volume in each.pod.get("volumes", []) if "configMap" in volume]
        for name in read:
            if name not in there:
                yield f"{each.name} reads {name}, which nobody makes"
            if not re.fullmatch(r"[a-z-]+-[a-z0-9]{10}", name):
                yield f"{each.name} does not notice a change of {name}"
