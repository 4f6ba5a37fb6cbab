"""What the kubelet asks containers, and how long it waits for them."""

from collections.abc import Iterator

from manifests import Manifest, workloads

PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
PATHS = {
    "gateway": ("/healthz", "/healthz", "/readyz"),
    "worker": ("/healthz", "/healthz", "/readyz"),
    "triton": ("/v2/health/ready", "/v2/health/live", "/v2/health/ready"),
}
"""What each of PROBES asks. Liveness depends on nothing outside the process: a restart would heal nothing there."""
LEAST_START_S = {"triton": 600}
"""Seconds that a container has to start, where not a minute: loading and warming a large model takes many."""


def probes(container: Manifest) -> dict[str, Manifest]:
    return {kind: container[kind] for kind in PROBES if kind in container}


def http_gets(container: Manifest) -> list[Manifest]:
    return [probe["httpGet"] for probe in probes(container).values() if "httpGet" in probe]


def probed(manifests: list[Manifest]) -> Iterator[str]:
    """Every container that stays has its three probes, at its own port and at the path meant for each."""
    for each in workloads(manifests):
        for container in each.lasting:
            where = f"{each.name}/{container['name']}"
            if len(probes(container)) < 3:
                yield f"{where} lacks one of the three probes"
            own_ports = {port["name"] for port in container.get("ports", [])}
            for action in http_gets(container):
                if action["port"] not in own_ports:
                    yield f"{where} is probed at {action['port']}, which is no port of its own"
            asked = tuple(action["path"] for action in http_gets(container))
            if asked != PATHS.get(container["name"], ()):
                yield f"{where} is asked {', '.join(asked)}"


def patient(manifests: list[Manifest]) -> Iterator[str]:
    """A container has time to start, and a rollout more than its slowest one."""
    for each in workloads(manifests):
        starts_s = {c["name"]: start_s(c) for c in each.lasting}
        for name, seconds in starts_s.items():
            if seconds < (least_s := LEAST_START_S.get(name, 60)):
                yield f"{each.name}/{name} has {seconds} s to start, not {least_s}"
        if each.spec.get("progressDeadlineSeconds", 600) <= max(starts_s.values()):
            yield f"{each.name} is called failed while it may still start"


def start_s(container: Manifest) -> int:
    probe = container.get("startupProbe", {})
    return int(probe.get("failureThreshold", 3) * probe.get("periodSeconds", 10))
