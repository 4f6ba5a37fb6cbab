"""The Helm chart gives what kustomize gives, lets each of its values change what it says, and refuses any other."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml
from charts import CHART, Values, comparable, helm_template, values
from jsonschema import Draft7Validator
from manifests import K8S, ROOT, Manifest, find, of_kind, overlay, workload, workloads

from service.settings import Settings, variable

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
WIRED = {"host", "port", "metrics_port", "worker_metrics_port", "redis_url", "triton_url", "repository"}
"""Settings that the chart decides; redis.url is one of its own values."""
ELSEWHERE = {"key_file", "api_key", "webhook_secret"}
"""Of these, the first is the mount of a Secret, the second a client's, and the third comes from a Secret, too."""
PUBLIC: Values = {"ingress": {"enabled": True}, "httpRoute": {"enabled": True}}
MANAGED: Values = {"redis": {"enabled": False, "url": "redis://vqd-redis:6379/0"}}


@pytest.mark.parametrize(
    ("given", "resource", "components"),
    [
        ({}, "base", ()),
        (values("values-local.yaml"), "overlays/local", ()),
        (values("values-gpu.yaml"), "overlays/gpu", ()),
        (PUBLIC, "base", ("ingress", "httproute")),
        (MANAGED, "base", ("managed-redis",)),
        ({"model": {"existingClaim": "vqd-model"}}, "base", ("own-model",)),
        ({"webhooks": {"enabled": True}}, "base", ("webhooks",)),
    ],
    ids=["base", "local", "gpu", "public", "managed", "own-model", "webhooks"],
)
def test_helm_gives_what_kustomize_gives(
    tmp_path: Path, given: Values, resource: str, components: tuple[str, ...]
) -> None:
    compare(helm_template(given), overlay(tmp_path, resource, *components))


def test_helm_gives_what_kustomize_gives_with_storage(tmp_path: Path) -> None:
    given = helm_template({"settings": {"VQD_S3_BUCKET": "pictures"}})
    compare(given, overlay(tmp_path, "base", "s3", settings=["VQD_S3_BUCKET=pictures"]))


def compare(rendered: list[Manifest], kustomized: list[Manifest]) -> None:
    ours, theirs = comparable(rendered), comparable(kustomized)
    assert ours.keys() == theirs.keys()
    for what, manifest in theirs.items():
        assert yaml.safe_dump(ours[what]) == yaml.safe_dump(manifest), what


def test_another_release_changes_names_and_nothing_else() -> None:
    """Two releases in one namespace neither share an object nor select each other's pods."""
    blue = helm_template({}, "blue")
    assert {manifest["metadata"]["name"].partition("-vqd-")[0] for manifest in blue} == {"blue"}
    text = json.dumps(list(comparable(blue).values())).replace("blue-vqd-", "vqd-")
    assert {(m["kind"], m["metadata"]["name"]): m for m in json.loads(text)} == comparable(helm_template({}))
    for selector in selectors(blue):
        assert selector["app.kubernetes.io/instance"] == "blue"


def selectors(part: Any) -> Iterator[dict[str, str]]:
    """What chooses pods of ours, anywhere in the objects."""
    for key, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        if key == "matchLabels" and "app.kubernetes.io/name" in value and value["app.kubernetes.io/name"] == "vqd":
            yield value
        if key == "selector" and "matchLabels" not in value:
            yield value
        yield from selectors(value)


def test_a_changed_setting_rolls_the_pods_that_read_it() -> None:
    before, after = helm_template({}), helm_template({"settings": {"VQD_MAX_ROWS": 64}})
    pods = {pod.name: pod.spec["template"] for pod in workloads(before)}
    rolled = {pod.name for pod in workloads(after) if pod.spec["template"] != pods[pod.name]}
    assert rolled == {"vqd-gateway", "vqd-inference"}
    larger = helm_template({"redis": {"maxmemory": "600mb"}})
    assert {pod.name for pod in workloads(larger) if pod.spec["template"] != pods[pod.name]} == {"vqd-redis"}


def test_settings_are_written_as_they_are_meant() -> None:
    given = {"VQD_MAX_BODY_BYTES": 10000000, "VQD_SYNC_WAIT_S": 2.5, "VQD_LOG_FORMAT": "text", "VQD_MAX_ROWS": "8"}
    data = find(helm_template({"settings": given}), "ConfigMap", "vqd-settings")["data"]
    assert {name: data[name] for name in given} == {name: str(value) for name, value in given.items()}


EVERYTHING: Values = {
    **PUBLIC,
    "images": {
        "registry": "mirror.example.com/team",
        "pullPolicy": "Always",
        "pullSecrets": [{"name": "login"}],
        "worker": {"digest": f"sha256:{'a' * 64}"},
        "redis": {"tag": "7.4.12-alpine"},
    },
    "secrets": {"keys": "my-keys", "passwords": "my-passwords", "s3": "my-storage", "webhooks": "my-webhooks"},
    "webhooks": {"enabled": True},
    "gateway": {
        "service": {"type": "LoadBalancer", "port": 8000, "annotations": {"a": "b"}},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "extraEnv": [{"name": "OTEL_SERVICE_NAME", "value": "pictures"}],
        "extraVolumes": [{"name": "certificates", "configMap": {"name": "certificates"}}],
        "extraVolumeMounts": [{"name": "certificates", "mountPath": "/etc/ssl/own", "readOnly": True}],
    },
    "inference": {
        "podAnnotations": {"a": "b"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"podAffinity": {}},
    },
    "gpu": {"enabled": True},
    "redis": {"nodeSelector": {"disk": "fast"}, "storage": {"className": "fast"}},
    "ingress": {
        **{"enabled": True, "className": "nginx", "annotations": {"nginx.ingress.kubernetes.io/rewrite-target": "/$2"}},
        **{"path": "/vqd(/|$)(.*)", "pathType": "ImplementationSpecific"},
    },
    "settings": {"VQD_ROOT_PATH": "/vqd", "VQD_S3_BUCKET": "mine"},
    "networkPolicy": {
        "s3": {"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [9000]},
        "webhooks": {"ports": [443, 8443]},
    },
}


def test_every_value_ends_where_it_belongs() -> None:
    rendered = helm_template(EVERYTHING)
    images = {
        c["name"]: c["image"].removeprefix("mirror.example.com/team/")
        for w in workloads(rendered)
        for c in w.containers
    }
    assert images == {
        "gateway": "vqd-gateway:0.1.0",
        "export": "vqd-export:0.1.0",
        "triton": "vqd-triton:0.1.0",
        "worker": f"vqd-worker@sha256:{'a' * 64}",
        "redis": "redis:7.4.12-alpine",
    }
    for each in workloads(rendered):
        assert each.pod["imagePullSecrets"] == [{"name": "login"}]
        assert {container["imagePullPolicy"] for container in each.containers} == {"Always"}
    gateway, inference, redis = (workload(rendered, f"vqd-{name}") for name in ("gateway", "inference", "redis"))
    assert {"name": "keys", "secret": {"secretName": "my-keys"}} in gateway.pod["volumes"]
    assert (
        gateway.pod["volumes"][-1]["name"] == gateway.container("gateway")["volumeMounts"][-1]["name"] == "certificates"
    )
    assert gateway.container("gateway")["env"][-1] == {"name": "OTEL_SERVICE_NAME", "value": "pictures"}
    assert len(inference.pod["tolerations"]) == 2, "the user's beside the GPU's"
    assert redis.pod["nodeSelector"] == {"disk": "fast"}
    assert text_of(rendered).count("my-passwords") == 3
    for container in (gateway.container("gateway"), inference.container("worker")):
        assert container["envFrom"][-1] == {"secretRef": {"name": "my-storage", "optional": True}}
    assert text_of(rendered).count("my-storage") == 2
    assert find(rendered, "NetworkPolicy", "vqd-to-s3")["spec"]["egress"] == [
        {"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 9000, "protocol": "TCP"}]}
    ]
    by_name = {variable["name"]: variable for variable in gateway.container("gateway")["env"]}
    assert by_name["VQD_WEBHOOK_SECRET"]["valueFrom"]["secretKeyRef"]["name"] == "my-webhooks"
    (rule,) = find(rendered, "NetworkPolicy", "vqd-webhooks")["spec"]["egress"]
    assert [port["port"] for port in rule["ports"]] == [443, 8443]
    (route,) = of_kind(rendered, "HTTPRoute")
    (rule,) = route["spec"]["rules"]
    assert (rule["matches"][0]["path"]["value"], rule["backendRefs"][0]["port"]) == ("/vqd", 8000)
    assert rule["filters"][0]["urlRewrite"]["path"]["replacePrefixMatch"] == "/"
    (ingress,) = of_kind(rendered, "Ingress")
    assert ingress["spec"]["rules"][0]["http"]["paths"][0]["path"] == "/vqd(/|$)(.*)"
    assert ingress["spec"]["ingressClassName"] == "nginx"


def text_of(manifests: list[Manifest]) -> str:
    return json.dumps(manifests)


def test_the_network_may_be_somebody_elses_matter() -> None:
    without = helm_template({"networkPolicy": {"enabled": False}})
    assert comparable(without) == comparable([m for m in helm_template({}) if m["kind"] != "NetworkPolicy"])


def test_a_gateway_can_be_upgraded_after_the_workers() -> None:
    """As the README says: with the gateway's old image a new version of the chart leaves its pods as they are."""
    pods = workload(helm_template({}), "vqd-gateway").spec["template"]
    held = helm_template({"images": {"gateway": {"tag": "0.1.0"}, "worker": {"tag": "0.2.0"}}})
    assert workload(held, "vqd-gateway").spec["template"] == pods
    assert "0.2.0" in workload(held, "vqd-inference").container("worker")["image"]


def test_what_the_values_make_is_what_kubernetes_takes() -> None:
    for manifest in helm_template(EVERYTHING):
        if manifest["kind"] not in ("ScaledObject", "HTTPRoute"):
            kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


# What is refused


def named_values(schema: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The way to every object that names its own fields."""
    if "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    if "properties" in schema:
        yield place
    for name, inner in schema.get("properties", {}).items():
        yield from named_values(inner, (*place, name))


@pytest.mark.parametrize("place", list(named_values(SCHEMA)), ids=".".join)
def test_a_misspelt_value_is_refused(place: tuple[str, ...]) -> None:
    wrong: Values = {"mispelt": 1}
    for name in reversed(place):
        wrong = {name: wrong}
    assert not Draft7Validator(SCHEMA).is_valid(wrong)
    with pytest.raises(helm_python.HelmValuesError, match="additional properties 'mispelt' not allowed"):
        helm_template(wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"settings": {"VQD_MAX_ROW": 32}}, "VQD_MAX_ROW"),
        ({"gpu": {"settings": {"VQD_HOST": "::"}}}, "VQD_HOST"),
        ({"gateway": {"replicas": 0}}, "/gateway/replicas"),
        ({"redis": {"url": "redis://:hunter2@cache:6379/0"}}, "/redis/url"),
        ({"images": {"triton": {"digest": "latest"}}}, "/images/triton/digest"),
        ({"inference": {"tolerations": [{"key": "a", "efect": "NoSchedule"}]}}, "efect"),
        ({"gateway": {"resources": {"limit": {}}}}, "limit"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_value_is_refused_by_name(wrong: Values, message: str) -> None:
    with pytest.raises(helm_python.HelmValuesError, match=re.escape(message)):
        helm_template(wrong)


def test_a_managed_redis_needs_an_address() -> None:
    with pytest.raises(helm_python.HelmRenderError, match=r"redis\.url must name a Redis"):
        helm_template({"redis": {"enabled": False}})
    by_secret = helm_template({"redis": {"enabled": False}, "secrets": {"passwords": "redis"}})
    assert "VQD_REDIS_URL" not in find(by_secret, "ConfigMap", "vqd-settings")["data"]


def test_the_schema_knows_every_setting_and_every_default() -> None:
    """After a new setting: its name into propertyNames of values.schema.json."""
    known = set(SCHEMA["definitions"]["settings"]["propertyNames"]["enum"])
    assert known == {variable(name) for name in Settings.model_fields.keys() - WIRED - ELSEWHERE}
    Draft7Validator(SCHEMA).validate(values("values.yaml"))
    assert missing(SCHEMA, values("values.yaml")) == []


def missing(schema: Any, given: Any, place: str = "") -> list[str]:
    """Values that the schema knows and values.yaml does not show."""
    if "$ref" in schema and schema["$ref"].rpartition("/")[2] != "image":
        return []
    schema = SCHEMA["definitions"]["image"] if "$ref" in schema else schema
    names = schema.get("properties", {}) if isinstance(given, dict) and not place.endswith(".affinity") else {}
    found = [f"{place}.{name}" for name in names if name not in given]
    return found + [
        line for name in names if name in given for line in missing(names[name], given[name], f"{place}.{name}")
    ]


# As a package


def test_helm_lint_finds_no_more_than_that_there_is_no_icon() -> None:
    report = helm_python.lint(CHART, strict=True)
    assert [(message["path"], message["error"]) for message in report["messages"]] == [
        ("Chart.yaml", "icon is recommended")
    ]


def test_one_version_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = values("Chart.yaml")
    tags = {image["newTag"] for image in yaml.safe_load((K8S / "base/kustomization.yaml").read_text())["images"]}
    assert {chart["version"], chart["appVersion"]} == {version}
    assert version in tags
    assert len(tags) == 2, "ours, and Redis'"


def test_the_package_is_the_chart(tmp_path: Path) -> None:
    archive = helm_python.package(CHART, destination=tmp_path)
    assert Path(archive).name == "vqd-0.1.0.tgz"
    with helm_python.Chart.load(archive) as packed, helm_python.Chart.load(CHART) as chart:
        assert packed.render({}, name="vqd") == chart.render({}, name="vqd")
        assert packed.schema == SCHEMA
