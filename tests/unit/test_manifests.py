"""Every overlay renders, is what Kubernetes takes, and keeps our rules; each rule notices what it is for."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from manifest_owners import COMPONENT, NAME
from manifest_rules import (
    RULES,
    Rule,
    bounded,
    default_denied,
    fitting,
    graceful,
    in_a_namespace,
    keyed,
    labelled,
    matched,
    movable,
    ordered,
    owned,
    patient,
    pinned,
    probed,
    real_settings,
    remembering,
    restricted,
    rolling,
    scaled,
    seamless,
    secretless,
    settings_variables,
    spelled_out,
    tokenless,
)
from manifests import K8S, Manifest, find, of_kind, render, selects, workload, workloads

OVERLAYS = ["base", "overlays/local", "overlays/gpu"]
CUSTOM = {"ScaledObject", "HTTPRoute"}
"""Kinds that come with their own schema: none of Kubernetes' covers them."""
VERSIONS = [f"1.{minor}" for minor in range(32, int(kubernetes_validate.latest_version().split(".")[1]) + 1)]


@pytest.fixture(params=[*OVERLAYS, "own"])
def folder(request: pytest.FixtureRequest, own: Path) -> Path:
    return own if request.param == "own" else K8S / request.param


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rules(folder: Path, rule: Rule) -> None:
    assert list(rule(render(folder))) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_schemas(folder: Path, version: str) -> None:
    for manifest in render(folder):
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_schemas_notice_a_misspelt_field(gpu: list[Manifest]) -> None:
    workload(gpu, "vqd-gateway").pod["enableServiceLink"] = False
    with pytest.raises(kubernetes_validate.ValidationError, match="enableServiceLink"):
        kubernetes_validate.validate(find(gpu, "Deployment", "vqd-gateway"), VERSIONS[0], strict=True)


# What each rule notices. A path leads from a container, a pod, a workload's spec or a manifest to what is taken away.

LASTING = [("vqd-gateway", "gateway"), ("vqd-inference", "triton"), ("vqd-inference", "worker"), ("vqd-redis", "redis")]
CONTAINERS = [*LASTING, ("vqd-inference", "export")]


@pytest.mark.parametrize(("pod", "container"), LASTING)
@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_a_removed_probe_is_noticed(gpu: list[Manifest], pod: str, container: str, probe: str) -> None:
    del workload(gpu, pod).container(container)[probe]
    assert any(f"{pod}/{container}" in line for line in probed(gpu))


@pytest.mark.parametrize(("pod", "container"), CONTAINERS)
@pytest.mark.parametrize("kind", ["requests", "limits"])
@pytest.mark.parametrize("resource", ["cpu", "memory", "ephemeral-storage"])
def test_a_removed_limit_is_noticed(gpu: list[Manifest], pod: str, container: str, kind: str, resource: str) -> None:
    del workload(gpu, pod).container(container)["resources"][kind][resource]
    assert f"{pod}/{container} has no {resource} in {kind}" in list(bounded(gpu))


@pytest.mark.parametrize(("pod", "container"), CONTAINERS)
@pytest.mark.parametrize("field", ["allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities"])
def test_a_removed_security_context_is_noticed(gpu: list[Manifest], pod: str, container: str, field: str) -> None:
    del workload(gpu, pod).container(container)["securityContext"][field]
    assert any(f"{pod}/{container}" in line for line in restricted(gpu))


@pytest.mark.parametrize("pod", ["vqd-gateway", "vqd-inference", "vqd-redis"])
@pytest.mark.parametrize("field", ["runAsNonRoot", "runAsUser", "seccompProfile"])
def test_a_removed_pod_security_context_is_noticed(gpu: list[Manifest], pod: str, field: str) -> None:
    del workload(gpu, pod).pod["securityContext"][field]
    assert any(line.startswith(pod) for line in restricted(gpu))


def lead(place: Any, path: str) -> tuple[Any, Any]:
    """Where ``path`` (keys and indices, with dots) leads to: what holds it, and its key or index there."""
    *way, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in way:
        place = place[key]
    return place, last


def change(kind: str, name: str, path: str, value: Any) -> Callable[[list[Manifest]], None]:
    """Set what ``path`` of one manifest leads to."""

    def apply(manifests: list[Manifest]) -> None:
        place, last = lead(find(manifests, kind, name), path)
        place[last] = value

    return apply


def set_variable(name: str, value: str) -> Callable[[list[Manifest]], None]:
    return lambda manifests: settings_variables(manifests).update({name: value})


def configure_redis(old: str, new: str) -> Callable[[list[Manifest]], None]:
    def apply(manifests: list[Manifest]) -> None:
        (data,) = [m["data"] for m in of_kind(manifests, "ConfigMap") if "redis.conf" in m["data"]]
        data["redis.conf"] = data["redis.conf"].replace(old, new)

    return apply


def drop(kind: str, name: str, path: str) -> Callable[[list[Manifest]], None]:
    """Take away what ``path`` leads to."""

    def apply(manifests: list[Manifest]) -> None:
        place, last = lead(find(manifests, kind, name), path)
        del place[last]

    return apply


POD = "spec.template.spec"
BREAKS: list[tuple[Rule, Callable[[list[Manifest]], None]]] = [
    (restricted, change("Deployment", "vqd-gateway", f"{POD}.hostNetwork", True)),
    (restricted, change("Deployment", "vqd-inference", f"{POD}.volumes.0", {"name": "models", "hostPath": {}})),
    (restricted, change("Deployment", "vqd-gateway", f"{POD}.containers.0.ports.0.hostPort", 80)),
    (bounded, change("Deployment", "vqd-inference", f"{POD}.volumes.0.emptyDir", {})),
    (bounded, change("Deployment", "vqd-inference", f"{POD}.volumes.0.emptyDir.sizeLimit", "6Gi")),
    (probed, change("Deployment", "vqd-gateway", f"{POD}.containers.0.ports.0.name", "web")),
    (probed, change("Deployment", "vqd-gateway", f"{POD}.containers.0.readinessProbe.httpGet.path", "/healthz")),
    (probed, change("Deployment", "vqd-inference", f"{POD}.containers.0.livenessProbe.httpGet.path", "/readyz")),
    (patient, change("Deployment", "vqd-inference", f"{POD}.initContainers.1.startupProbe.failureThreshold", 12)),
    (patient, change("Deployment", "vqd-inference", "spec.progressDeadlineSeconds", 600)),
    (pinned, change("Deployment", "vqd-gateway", f"{POD}.containers.0.image", "ghcr.io/example/vqd-gateway:latest")),
    (pinned, change("Deployment", "vqd-gateway", f"{POD}.containers.0.image", "ghcr.io/example/vqd-gateway")),
    (tokenless, change("ServiceAccount", "vqd-redis", "automountServiceAccountToken", True)),
    (tokenless, change("StatefulSet", "vqd-redis", f"{POD}.automountServiceAccountToken", True)),
    (tokenless, change("StatefulSet", "vqd-redis", f"{POD}.serviceAccountName", "default")),
    (tokenless, change("Deployment", "vqd-gateway", f"{POD}.enableServiceLinks", True)),
    (scaled, change("Deployment", "vqd-gateway", "spec.replicas", 2)),
    (scaled, change("Deployment", "vqd-inference", "spec.replicas", 2)),
    (scaled, change("ScaledObject", "vqd-inference", "spec.minReplicaCount", 0)),
    (scaled, change("HorizontalPodAutoscaler", "vqd-gateway", "spec.maxReplicas", 1)),
    (seamless, change("Deployment", "vqd-gateway", "spec.strategy.rollingUpdate.maxUnavailable", 1)),
    (seamless, drop("Deployment", "vqd-gateway", f"{POD}.containers.0.lifecycle")),
    (seamless, drop("Deployment", "vqd-inference", "spec.minReadySeconds")),
    (keyed, set_variable("VQD_ALLOW_UNAUTHENTICATED", "true")),
    (keyed, change("Deployment", "vqd-gateway", f"{POD}.containers.0.env.1.value", "/run/secrets/keys")),
    (keyed, change("Deployment", "vqd-gateway", f"{POD}.containers.0.volumeMounts.0.mountPath", "/run/secrets")),
    (keyed, change("Deployment", "vqd-gateway", f"{POD}.containers.0.volumeMounts.0.readOnly", False)),
    (keyed, change("Deployment", "vqd-gateway", f"{POD}.volumes.0.secret.optional", True)),
    (keyed, change("Deployment", "vqd-inference", f"{POD}.volumes.0", {"name": "models", "secret": {}})),
    (rolling, change("Deployment", "vqd-gateway", f"{POD}.containers.0.envFrom.0.configMapRef.name", "vqd-setting")),
    (rolling, change("StatefulSet", "vqd-redis", f"{POD}.volumes.0.configMap.name", "vqd-redis")),
    (matched, change("Deployment", "vqd-gateway", "spec.selector", {"matchLabels": {"app.kubernetes.io/name": "vqd"}})),
    (matched, change("Deployment", "vqd-gateway", f"{POD}.topologySpreadConstraints", [])),
    (matched, change("Service", "vqd-redis", "spec.ports.0.targetPort", "http")),
    (matched, change("NetworkPolicy", "vqd-redis", "spec.podSelector", {"matchLabels": {"app": "redis"}})),
    (movable, change("PodDisruptionBudget", "vqd-gateway", "spec.maxUnavailable", 0)),
    (movable, change("PodDisruptionBudget", "vqd-inference", "spec.selector", {"matchLabels": {"app": "vqd"}})),
    (graceful, change("Deployment", "vqd-gateway", f"{POD}.terminationGracePeriodSeconds", 15)),
    (graceful, set_variable("VQD_DRAIN_S", "25")),
    (real_settings, set_variable("VQD_MAXROWS", "32")),
    (real_settings, set_variable("VQD_MAX_ROWS", "0")),
    (real_settings, set_variable("VQD_PORT", "8000")),
    (real_settings, set_variable("VQD_WORKER_METRICS_PORT", "0")),
    (real_settings, set_variable("VQD_METRICS_PORT", "0")),
    (real_settings, set_variable("VQD_TRITON_URL", "127.0.0.1:8000")),
    (real_settings, change("Deployment", "vqd-inference", f"{POD}.containers.0.env.0.name", "VQD_REDIS")),
    (ordered, lambda manifests: workload(manifests, "vqd-inference").pod["initContainers"].reverse()),
    (ordered, change("Deployment", "vqd-inference", f"{POD}.initContainers.1.restartPolicy", None)),
    (ordered, change("Deployment", "vqd-inference", f"{POD}.initContainers.0.volumeMounts.0.readOnly", True)),
    (ordered, change("Deployment", "vqd-inference", f"{POD}.containers.0.volumeMounts", [])),
    (fitting, change("Deployment", "vqd-inference", f"{POD}.initContainers.0.command.4", "--repository=/tmp/models")),
    (fitting, change("Deployment", "vqd-inference", f"{POD}.initContainers.1.args.3", "--grpc-address=0.0.0.0")),
    (fitting, drop("Deployment", "vqd-inference", f"{POD}.initContainers.1.env.1")),
    (secretless, lambda manifests: manifests.append({"kind": "Secret", "metadata": {"name": "vqd-secrets"}})),
    (secretless, set_variable("VQD_REDIS_URL", "redis://:hunter2@cache:6379/0")),
    (in_a_namespace, lambda manifests: manifests.append({"kind": "ClusterRole", "metadata": {"name": "all"}})),
    (remembering, configure_redis("appendonly yes", "appendonly no")),
    (remembering, configure_redis("appendfsync everysec", "appendfsync no")),
    (remembering, configure_redis("noeviction", "allkeys-lru")),
    (remembering, configure_redis("640mb", "1gb")),
    (remembering, configure_redis("dir /data", "dir /tmp")),
    (owned, change("Deployment", "vqd-gateway", f"{POD}.containers.0.volumeMounts.1.mountPath", "/scratch")),
    (owned, drop("StatefulSet", "vqd-redis", f"{POD}.securityContext.fsGroup")),
    (spelled_out, drop("Deployment", "vqd-gateway", "spec.strategy.type")),
    (spelled_out, drop("StatefulSet", "vqd-redis", "spec.volumeClaimTemplates.0.status")),
    (spelled_out, drop("NetworkPolicy", "vqd-clients", "spec.ingress.0.ports.0.protocol")),
    (labelled, drop("HorizontalPodAutoscaler", "vqd-gateway", "metadata.labels")),
    (labelled, change("PodDisruptionBudget", "vqd-inference", "metadata.labels", {NAME: "vqd"})),
    (labelled, change("NetworkPolicy", "vqd-dns", "metadata.labels", {NAME: "vqd", COMPONENT: "gateway"})),
    (default_denied, change("NetworkPolicy", "vqd-default-deny", "spec.policyTypes", ["Ingress"])),
    (default_denied, change("NetworkPolicy", "vqd-default-deny", "spec.podSelector", {"matchLabels": {"app": "vqd"}})),
]


@pytest.mark.parametrize(
    ("rule", "break_it"), BREAKS, ids=[f"{rule.__name__}-{i}" for i, (rule, _) in enumerate(BREAKS)]
)
def test_a_breach_is_noticed(gpu: list[Manifest], rule: Rule, break_it: Callable[[list[Manifest]], None]) -> None:
    break_it(gpu)
    assert list(rule(gpu))


def test_every_rule_is_tried() -> None:
    assert {rule for rule, _ in BREAKS} == set(RULES)


# Overlays and components say what they are for


def test_local_runs_one_of_each_without_an_autoscaler() -> None:
    local = render(K8S / "overlays/local")
    assert not of_kind(local, "HorizontalPodAutoscaler", "ScaledObject")
    assert [each.spec["replicas"] for each in workloads(local)] == [1, 1, 1]


def test_gpu_asks_for_one_gpu_and_keeps_two_calls_in_flight(gpu: list[Manifest]) -> None:
    inference = workload(gpu, "vqd-inference")
    asking = {c["name"]: c["resources"]["limits"].get("nvidia.com/gpu") for c in inference.containers}
    assert asking == {"export": None, "triton": "1", "worker": None}
    assert inference.pod["tolerations"]
    assert inference.pod["nodeSelector"]
    assert settings_variables(gpu)["VQD_CALLS_IN_FLIGHT"] == "2"


def test_every_pod_exports_in_one_dtype_whatever_its_node(folder: Path) -> None:
    dtype = "bf16" if folder.name == "gpu" else "fp32"
    assert f"--dtype={dtype}" in workload(render(folder), "vqd-inference").container("export")["command"]


def test_an_own_model_is_exported_from_its_claim(own: Path) -> None:
    inference = workload(render(own), "vqd-inference")
    export = inference.container("export")
    assert "--model=/model" in export["command"]
    (mount,) = [mount for mount in export["volumeMounts"] if mount["mountPath"] == "/model"]
    claims = {v["name"]: v["persistentVolumeClaim"] for v in inference.pod["volumes"] if "persistentVolumeClaim" in v}
    assert claims[mount["name"]] == {"claimName": "vqd-model", "readOnly": True}


def test_the_secret_template_has_every_key_that_pods_look_for(gpu: list[Manifest]) -> None:
    template = yaml.safe_load((K8S / "secret.example.yaml").read_text())
    for version in VERSIONS:
        kubernetes_validate.validate(template, version, strict=True)
    asked = [
        variable["valueFrom"]["secretKeyRef"]
        for each in workloads(gpu)
        for container in each.lasting
        for variable in container.get("env", [])
        if "secretKeyRef" in variable.get("valueFrom", {})
    ]
    assert {(ref["name"], ref["key"]) for ref in asked} == {
        (template["metadata"]["name"], key) for key in template["stringData"]
    }
    assert all(ref["optional"] for ref in asked), "without a Secret everything starts, too"


def test_the_overlay_of_the_readme_does_what_it_says(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n# mine/.*?\n(.*?)```", (K8S / "README.md").read_text(), re.DOTALL)
    (tmp_path / "kustomization.yaml").write_text(text.replace("../k8s", os.path.relpath(K8S, tmp_path)))
    mine = render(tmp_path)
    image = workload(mine, "vqd-gateway").container("gateway")["image"]
    assert image == "registry.example.com/vqd-gateway:0.2.0"
    assert settings_variables(mine) == settings_variables(render(K8S / "overlays/gpu")) | {"VQD_RESULT_TTL_S": "7200"}
    (trigger,) = find(mine, "ScaledObject", "vqd-inference")["spec"]["triggers"]
    assert trigger["metadata"]["serverAddress"] == "http://prometheus-operated.monitoring.svc:9090"
    assert {manifest["metadata"]["namespace"] for manifest in mine} == {"vqd"}


@pytest.mark.parametrize("path", sorted(K8S.rglob("podmonitors.yaml")))
def test_pod_monitors_find_their_pods(gpu: list[Manifest], path: Path) -> None:
    for monitor in yaml.safe_load_all(path.read_text()):
        (found,) = [each for each in workloads(gpu) if selects(monitor["spec"]["selector"], each.labels)]
        assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= set(found.ports())


def test_the_operators_objects_keep_the_rules_of_all_objects(gpu: list[Manifest]) -> None:
    monitoring = render(K8S / "monitoring")
    assert list(labelled([*gpu, *monitoring])) == []
    assert list(spelled_out(monitoring)) == []
