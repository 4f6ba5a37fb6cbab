"""Kustomizations of k8s/, rendered, and what the tests look up in them."""

import copy
import functools
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

ROOT = Path(__file__).parents[1]
K8S = ROOT / "k8s"
KUBECTL = Path(sys.executable).parent / "kubectl"


@functools.cache
def kustomize(folder: Path) -> list[Manifest]:
    command = [KUBECTL, "kustomize", folder]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]


def render(folder: Path) -> list[Manifest]:
    """What `kubectl apply -k` would send; fresh objects each time, so that a test may break them."""
    return copy.deepcopy(kustomize(folder))


def overlay(folder: Path, resource: str, *components: str, settings: Sequence[str] = ()) -> list[Manifest]:
    """An overlay of these, rendered: kustomize wants relative paths, so ``folder`` gets a link to k8s/."""
    (folder / "k8s").symlink_to(K8S)
    resources, paths = [f"k8s/{resource}"], [f"k8s/components/{name}" for name in components]
    told = {"name": "vqd-settings", "behavior": "merge", "literals": [*settings]}
    generators = {"configMapGenerator": [told]} if settings else {}
    text = yaml.safe_dump({"resources": resources, "components": paths, **generators})
    (folder / "kustomization.yaml").write_text(text)
    return kustomize(folder)


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def find(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = [manifest for manifest in of_kind(manifests, kind) if manifest["metadata"]["name"] == name]
    return found


@dataclass(frozen=True)
class Workload:
    """A Deployment or StatefulSet."""

    manifest: Manifest

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def spec(self) -> Manifest:
        spec: Manifest = self.manifest["spec"]
        return spec

    @property
    def pod(self) -> Manifest:
        pod: Manifest = self.spec["template"]["spec"]
        return pod

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.spec["template"]["metadata"]["labels"]
        return labels

    @property
    def containers(self) -> list[Manifest]:
        """All of them, in the order in which they start."""
        return [*self.pod.get("initContainers", []), *self.pod["containers"]]

    @property
    def lasting(self) -> list[Manifest]:
        """Those that stay: the containers proper and the sidecars."""
        sidecars = [c for c in self.pod.get("initContainers", []) if c.get("restartPolicy") == "Always"]
        return [*sidecars, *self.pod["containers"]]

    def container(self, name: str) -> Manifest:
        (found,) = [container for container in self.containers if container["name"] == name]
        return found

    def ports(self) -> dict[str, int]:
        return {p["name"]: p["containerPort"] for c in self.lasting for p in c.get("ports", [])}


def workloads(manifests: list[Manifest]) -> Iterator[Workload]:
    yield from map(Workload, of_kind(manifests, "Deployment", "StatefulSet"))


def workload(manifests: list[Manifest], name: str) -> Workload:
    (found,) = [each for each in workloads(manifests) if each.name == name]
    return found


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """A label selector, as far as our manifests use them."""
    wanted = selector.get("matchLabels", {})
    expressions = selector.get("matchExpressions", [])
    assert all(expression["operator"] == "In" for expression in expressions)
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        labels.get(expression["key"]) in expression["values"] for expression in expressions
    )


def quantity(text: str | int) -> float:
    """250m, 64Mi, 4Gi, 640mb (as Redis writes it) → a number."""
    units = {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "mb": 2**20, "gb": 2**30}
    written = str(text)
    unit = written.lstrip("0123456789.")
    return float(written.removesuffix(unit)) * (units[unit] if unit else 1)
