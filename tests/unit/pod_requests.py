"""What pods ask of their nodes, as Kubernetes' scheduler adds it up."""

from collections.abc import Iterable

from manifests import Manifest, Workload, of_kind, quantity, workloads

Amounts = dict[str, float]
"""Resource → cores, bytes or devices."""


def together(parts: Iterable[Amounts]) -> Amounts:
    total: Amounts = {}
    for part in parts:
        total = {name: total.get(name, 0) + part.get(name, 0) for name in {*total, *part}}
    return total


def request(container: Manifest) -> Amounts:
    """What has a limit and no request asks for its limit."""
    resources = container["resources"]
    return {name: quantity(text) for name, text in (resources["limits"] | resources["requests"]).items()}


def of_pod(each: Workload) -> Amounts:
    """All that stays, or, where it is more, what starts and ends before the rest, beside the sidecars before it."""
    needed, sidecars = together(map(request, each.lasting)), list[Amounts]()
    for container in each.pod.get("initContainers", []):
        if container.get("restartPolicy") == "Always":
            sidecars.append(request(container))
            continue
        start = together([*sidecars, request(container)])
        needed = {name: max(needed.get(name, 0), start.get(name, 0)) for name in {*needed, *start}}
    return needed


def replicas(each: Workload, manifests: list[Manifest]) -> int:
    """How many pods there are while nothing is asked of the service."""
    for scaler in of_kind(manifests, "HorizontalPodAutoscaler", "ScaledObject"):
        spec = scaler["spec"]
        if spec["scaleTargetRef"]["name"] == each.name:
            return int(spec.get("minReplicas") or spec["minReplicaCount"])
    return int(each.spec.get("replicas", 1))


def always(manifests: list[Manifest]) -> Amounts:
    return together(of_pod(each) for each in workloads(manifests) for _ in range(replicas(each, manifests)))


def surge(manifests: list[Manifest]) -> Amounts:
    """What comes on top while every Deployment rolls at once."""
    rolling = [each for each in workloads(manifests) if "strategy" in each.spec]
    return together(of_pod(each) for each in rolling for _ in range(each.spec["strategy"]["rollingUpdate"]["maxSurge"]))
