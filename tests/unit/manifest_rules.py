"""The rules that rendered manifests keep. Each yields one line per breach, so that a test shows all of them at once."""

import re
from collections.abc import Callable, Iterator

from inference_rules import fitting, ordered
from key_rules import keyed
from manifest_owners import labelled
from manifests import Manifest, find, of_kind, quantity, selects, workload, workloads
from probe_rules import http_gets, patient, probed
from rollout_rules import rolling, seamless

from service.errors import SetupError
from service.gateway.app import SHUTDOWN_S
from service.settings import Settings, read_settings

Rule = Callable[[list[Manifest]], Iterator[str]]

RESOURCES = ("cpu", "memory", "ephemeral-storage")
RESTRICTED_VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret", "downwardAPI", "csi"}
PINNED = re.compile(r"[a-z0-9.]+\.[a-z]+/[a-z0-9/-]+(:\d+\.\d+\.\d+[\w.-]*|@sha256:[0-9a-f]{64})")
HOST_FIELDS = ("hostNetwork", "hostPID", "hostIPC")
NAMESPACED = {
    *("ServiceAccount", "ConfigMap", "Service", "Deployment", "StatefulSet", "HorizontalPodAutoscaler"),
    *("PodDisruptionBudget", "NetworkPolicy", "Ingress", "HTTPRoute", "ScaledObject", "PodMonitor", "PrometheusRule"),
}


def restricted(manifests: list[Manifest]) -> Iterator[str]:
    """Pod Security "restricted", and a read-only root."""
    for each in workloads(manifests):
        pod = each.pod
        security = pod.get("securityContext", {})
        if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
            yield f"{each.name} may run as root"
        if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{each.name} has no seccomp profile"
        if set(security) & {"sysctls", "seLinuxOptions", "appArmorProfile"} or any(pod.get(f) for f in HOST_FIELDS):
            yield f"{each.name} asks for the host"
        for volume in pod.get("volumes", []):
            if not set(volume) <= {"name", *RESTRICTED_VOLUMES}:
                yield f"{each.name} has a volume of a forbidden type: {volume}"
        for container in each.containers:
            for breach in open_container(container):
                yield f"{each.name}/{container['name']} {breach}"


def open_container(container: Manifest) -> Iterator[str]:
    allowed = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    if container.get("securityContext") != allowed:
        yield "does not have exactly the restricted securityContext"
    if any("hostPort" in port or "hostIP" in port for port in container.get("ports", [])):
        yield "binds a port of the host"
    if any("host" in action for action in http_gets(container)):
        yield "probes another host"


def bounded(manifests: list[Manifest]) -> Iterator[str]:
    """Requests and limits everywhere, and volumes in memory or on the node's disk that fit them."""
    for each in workloads(manifests):
        for container in each.containers:
            resources = container.get("resources", {})
            for kind in ("requests", "limits"):
                for missing in set(RESOURCES) - set(resources.get(kind, {})):
                    yield f"{each.name}/{container['name']} has no {missing} in {kind}"
        volumes = [volume["emptyDir"] for volume in each.pod.get("volumes", []) if "emptyDir" in volume]
        if not all("sizeLimit" in volume for volume in volumes):
            yield f"{each.name} has an emptyDir without sizeLimit"
        limits = [c.get("resources", {}).get("limits", {}).get("ephemeral-storage", 0) for c in each.lasting]
        if sum(quantity(volume.get("sizeLimit", 0)) for volume in volumes) > sum(map(quantity, limits)):
            yield f"{each.name} would be evicted before its emptyDirs are full"


def pinned(manifests: list[Manifest]) -> Iterator[str]:
    for each in workloads(manifests):
        for container in each.containers:
            if not PINNED.fullmatch(container["image"]):
                yield f"{each.name}/{container['name']}: {container['image']} names no registry and version or digest"


def tokenless(manifests: list[Manifest]) -> Iterator[str]:
    """No pod can talk to the API server, and no variable that Kubernetes makes up can pass for a setting."""
    accounts = {account["metadata"]["name"]: account for account in of_kind(manifests, "ServiceAccount")}
    for each in workloads(manifests):
        account = accounts.get(each.pod.get("serviceAccountName", ""), {})
        if account.get("automountServiceAccountToken") is not False:
            yield f"{each.name} has no account of its own without a token"
        if each.pod.get("automountServiceAccountToken") is not False:
            yield f"{each.name} mounts a token"
        if each.pod.get("enableServiceLinks") is not False:
            yield f"{each.name} gets variables that are named after Services, such as VQD_PORT"


def scaled(manifests: list[Manifest]) -> Iterator[str]:
    """An autoscaler has a target, owns its number of replicas, and never goes to zero."""
    for scaler in of_kind(manifests, "HorizontalPodAutoscaler", "ScaledObject"):
        spec = scaler["spec"]
        target = workload(manifests, spec["scaleTargetRef"]["name"])
        if "replicas" in target.spec:
            yield f"{target.name} has replicas beside an autoscaler"
        least = spec.get("minReplicas", spec.get("minReplicaCount", 0))
        if least < 1:
            yield f"{target.name} may be scaled to zero"
        if spec.get("maxReplicas", spec.get("maxReplicaCount", 0)) <= least:
            yield f"{target.name} cannot be scaled"


def matched(manifests: list[Manifest]) -> Iterator[str]:
    """Every selector selects what it is meant for."""
    pods = list(workloads(manifests))
    for each in pods:
        spreads = [constraint["labelSelector"] for constraint in each.pod.get("topologySpreadConstraints", [])]
        if not spreads:
            yield f"{each.name} is not spread"
        for selector in (each.spec["selector"], *spreads):
            if [other.name for other in pods if selects(selector, other.labels)] != [each.name]:
                yield f"{each.name} does not select exactly its own pods: {selector}"
    for service in of_kind(manifests, "Service"):
        chosen = [each for each in pods if selects({"matchLabels": service["spec"]["selector"]}, each.labels)]
        wanted = {port["targetPort"] for port in service["spec"]["ports"]}
        if not any(wanted <= set(each.ports()) for each in chosen):
            yield f"Service {service['metadata']['name']} leads nowhere"
    for policy in of_kind(manifests, "NetworkPolicy"):
        if not any(selects(policy["spec"]["podSelector"], each.labels) for each in pods):
            yield f"NetworkPolicy {policy['metadata']['name']} selects no pod"


def movable(manifests: list[Manifest]) -> Iterator[str]:
    """A budget protects one workload and lets at least one pod go, or a node could not be drained."""
    for budget in of_kind(manifests, "PodDisruptionBudget"):
        name, spec = budget["metadata"]["name"], budget["spec"]
        if sum(selects(spec["selector"], each.labels) for each in workloads(manifests)) != 1:
            yield f"PodDisruptionBudget {name} does not protect exactly one workload"
        if spec.get("maxUnavailable", 0) < 1:
            yield f"PodDisruptionBudget {name} lets no pod go"


def graceful(manifests: list[Manifest]) -> Iterator[str]:
    """The grace period covers preStop, the process's own end, and Triton's after it."""
    for each in workloads(manifests):
        grace_s = each.pod.get("terminationGracePeriodSeconds", 0)
        needed_s = sum(stop_s(manifests, container) for container in each.lasting)
        if grace_s < needed_s + 5:
            yield f"{each.name} has {grace_s} s to end and may need {needed_s} s"


def stop_s(manifests: list[Manifest], container: Manifest) -> float:
    sleep_s = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    own_s = {"gateway": SHUTDOWN_S, "worker": settings_of(manifests).drain_s, "triton": triton_stop_s(container)}
    return float(sleep_s + own_s.get(container["name"], 0))


def triton_stop_s(container: Manifest) -> int:
    options = dict(argument.split("=", 1) for argument in container.get("args", []) if "=" in argument)
    return int(options.get("--exit-timeout-secs", 0))


def settings_variables(manifests: list[Manifest]) -> dict[str, str]:
    (found,) = [m for m in of_kind(manifests, "ConfigMap") if m["metadata"]["name"].startswith("vqd-settings")]
    data: dict[str, str] = found["data"]
    return data


def settings_of(manifests: list[Manifest]) -> Settings:
    """As gateway and worker would read them. Raises SetupError for a value out of range."""
    return read_settings(**{k.removeprefix("VQD_").lower(): v for k, v in settings_variables(manifests).items()})


def real_settings(manifests: list[Manifest]) -> Iterator[str]:
    """Every VQD_ variable is a setting with a valid value, and the ports are those that the pods declare."""
    known = {f"VQD_{name.upper()}" for name in Settings.model_fields}
    given = {v["name"] for each in workloads(manifests) for c in each.containers for v in c.get("env", [])}
    for name in {*settings_variables(manifests), *(name for name in given if name.startswith("VQD_"))} - known:
        yield f"{name} is no setting"
    try:
        settings = settings_of(manifests)
    except SetupError as error:
        yield str(error)
        return
    inference = workload(manifests, "vqd-inference")
    if workload(manifests, "vqd-gateway").ports() != {"http": settings.port, "metrics": settings.metrics_port}:
        yield "the gateway does not listen where its ports are"
    if inference.ports().get("metrics") != settings.worker_metrics_port:
        yield "the worker does not listen where its port is"
    if f"--grpc-port={settings.triton_url.rpartition(':')[2]}" not in inference.container("triton")["args"]:
        yield "the worker looks for Triton at another port"


def secretless(manifests: list[Manifest]) -> Iterator[str]:
    for secret in of_kind(manifests, "Secret"):
        yield f"Secret {secret['metadata']['name']} is in the manifests"
    for config in of_kind(manifests, "ConfigMap"):
        for name, text in config.get("data", {}).items():
            if re.search(r"://[^/\s]*:[^/\s]*@|requirepass \S", text):
                yield f"ConfigMap {config['metadata']['name']}: {name} holds a password"


def in_a_namespace(manifests: list[Manifest]) -> Iterator[str]:
    """Nothing that needs rights on the whole cluster."""
    for manifest in manifests:
        if manifest["kind"] not in NAMESPACED or "namespace" in manifest["metadata"]:
            yield f"{manifest['kind']} {manifest['metadata']['name']} is not of the namespace it is applied to"


def remembering(manifests: list[Manifest]) -> Iterator[str]:
    """The bundled Redis, where there is one, keeps every job on a volume and stays within its memory."""
    for each in workloads(manifests):
        if each.name != "vqd-redis":
            continue
        (config,) = [c["data"]["redis.conf"] for c in of_kind(manifests, "ConfigMap") if "redis.conf" in c["data"]]
        lines = dict(line.split(" ", 1) for line in config.splitlines() if line and not line.startswith("#"))
        synced = lines.get("appendonly") == "yes" and lines.get("appendfsync") in ("everysec", "always")
        if not synced or lines.get("maxmemory-policy") != "noeviction":
            yield "Redis may forget jobs"
        claims = {claim["metadata"]["name"] for claim in each.spec.get("volumeClaimTemplates", [])}
        mounts = {mount["mountPath"]: mount["name"] for mount in each.container("redis")["volumeMounts"]}
        if mounts.get(lines.get("dir", "")) not in claims:
            yield "Redis keeps its file on no volume"
        limit = each.container("redis")["resources"]["limits"].get("memory", 0)
        if quantity(lines.get("maxmemory", 0)) > quantity(limit) * 2 / 3 or "maxmemory" not in lines:
            yield "Redis has no room to rewrite its file"


def owned(manifests: list[Manifest]) -> Iterator[str]:
    """With a read-only root, each container has a volume to write to. One that is claimed belongs to root, unless the
    pod names the group that may write."""
    for each in workloads(manifests):
        volumes = {volume["name"]: volume for volume in each.pod.get("volumes", [])}
        claimed = {claim["metadata"]["name"] for claim in each.spec.get("volumeClaimTemplates", [])}
        claimed |= {name for name, volume in volumes.items() if "persistentVolumeClaim" in volume}
        scratch = {("/tmp", name) for name, volume in volumes.items() if "emptyDir" in volume}
        for container in each.containers:
            mounted = {(mount["mountPath"], mount["name"]) for mount in container.get("volumeMounts", [])}
            if not mounted & (scratch | {("/data", name) for name in claimed}):
                yield f"{each.name}/{container['name']} has nowhere to write"
        security = each.pod["securityContext"]
        if claimed and security.get("fsGroup") != security["runAsGroup"]:
            yield f"{each.name} may not write to its volumes"


def spelled_out(manifests: list[Manifest]) -> Iterator[str]:
    """Defaults that kubectl would take for a change at every apply, as it does in lists that it compares as a whole."""
    for manifest in manifests:
        what, spec = f"{manifest['kind']} {manifest['metadata']['name']}", manifest.get("spec", {})
        if manifest["kind"] == "Deployment" and "type" not in spec.get("strategy", {}):
            yield f"{what} does not name the type of its strategy"
        for claim in spec.get("volumeClaimTemplates", []):
            written = (claim.get("kind"), claim["spec"].get("volumeMode"), claim.get("status", {}).get("phase"))
            if written != ("PersistentVolumeClaim", "Filesystem", "Pending") or claim.get("apiVersion") != "v1":
                yield f"{what} leaves defaults of its claim {claim['metadata']['name']} out"
        for rule in (*spec.get("ingress", []), *spec.get("egress", [])):
            if not all("protocol" in port for port in rule["ports"]):
                yield f"{what} has a port without protocol"
        for endpoint in spec.get("podMetricsEndpoints", []):
            if not all("action" in relabelling for relabelling in endpoint["relabelings"]):
                yield f"{what} has a relabelling without action"


def default_denied(manifests: list[Manifest]) -> Iterator[str]:
    denial = find(manifests, "NetworkPolicy", "vqd-default-deny")["spec"]
    if set(denial) != {"podSelector", "policyTypes"} or set(denial["policyTypes"]) != {"Ingress", "Egress"}:
        yield "the default lets something through"
    for each in workloads(manifests):
        if not selects(denial["podSelector"], each.labels):
            yield f"{each.name} is outside the default deny"


RULES: tuple[Rule, ...] = (
    *(restricted, bounded, probed, patient, pinned, tokenless, scaled, matched, movable, graceful, owned),
    *(real_settings, ordered, fitting, secretless, in_a_namespace, remembering, default_denied, labelled, spelled_out),
    *(seamless, rolling, keyed),
)
