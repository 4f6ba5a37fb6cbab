"""What k8s/README.md tells people to type or to have: selectors, rights, room on a node."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from manifest_owners import COMPONENT, NAME, labels_of, matches, owners
from manifests import K8S, ROOT, Manifest, render, workload, workloads
from pod_requests import always, of_pod, surge, together

PAGES = [ROOT / "README.md", K8S / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (K8S / "README.md").read_text()
OVERLAYS = ["overlays/local", "overlays/gpu"]
TYPED = re.compile(r"kubectl (?:-n vqd )?(.*?) -l '?([^'\s]+)'?")
"""A command, and the selector behind its ``-l``."""
MI = 2**20

every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)
Object = tuple[str, str]


def names(manifests: list[Manifest]) -> set[Object]:
    return {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}


def all_but(component: str) -> Callable[[list[Manifest]], set[Object]]:
    """All but what is one component's alone."""
    return lambda manifests: names([m for m in manifests if owners(m, manifests) != {component}])


def pods(manifests: list[Manifest]) -> set[Object]:
    return {("Pod", each.name) for each in workloads(manifests)}


def deployments(_: list[Manifest]) -> set[Object]:
    return {("Deployment", "vqd-gateway"), ("Deployment", "vqd-inference")}


MEANT: dict[tuple[str, str], Callable[[list[Manifest]], set[Object]]] = {
    ("apply -f vqd.yaml", f"{COMPONENT}!=gateway"): all_but("gateway"),
    ("apply -f vqd.yaml", f"{COMPONENT}!=inference"): all_but("inference"),
    ("delete pod", f"{NAME}=vqd"): pods,
    ("delete deployment", f"{NAME}=vqd"): deployments,
}
"""What the pages say that a command acts on."""


def selected(command: str, selector: str, manifests: list[Manifest]) -> set[Object]:
    """What a command acts on."""
    candidates = [(kind, name, labels_of(m)) for m in manifests for kind, name in names([m])]
    if command == "delete pod":
        candidates = [("Pod", each.name, each.labels) for each in workloads(manifests)]
    elif command.startswith("delete "):
        candidates = [one for one in candidates if one[0].lower() == command.removeprefix("delete ")]
    return {(kind, name) for kind, name, labels in candidates if matches(selector, labels)}


def test_every_selector_of_the_pages_is_known() -> None:
    assert {typed for page in PAGES for typed in TYPED.findall(page.read_text())} == set(MEANT)
    assert sum(len(re.findall(r" (?:-l|--selector)\b", page.read_text())) for page in PAGES) == len(
        [typed for page in PAGES for typed in TYPED.findall(page.read_text())]
    )


@every_overlay
@pytest.mark.parametrize(("command", "selector"), MEANT, ids=map(" -l ".join, MEANT))
def test_a_selector_selects_what_the_pages_say(overlay: str, command: str, selector: str) -> None:
    manifests = render(K8S / overlay)
    assert selected(command, selector, manifests) == MEANT[command, selector](manifests)


def test_the_first_step_of_an_upgrade_leaves_the_gateways_autoscaler_alone() -> None:
    manifests = render(K8S / "overlays/gpu")
    first = selected("apply -f vqd.yaml", f"{COMPONENT}!=gateway", manifests)
    assert ("HorizontalPodAutoscaler", "vqd-gateway") not in first
    assert {("ScaledObject", "vqd-inference"), ("NetworkPolicy", "vqd-default-deny")} <= first


@pytest.mark.parametrize(
    ("selector", "chosen"), [("a=1", True), ("a!=1", False), ("a=2", False), ("b!=1", True), ("a=1,b=1", False)]
)
def test_selectors_are_read_as_kubectl_reads_them(selector: str, chosen: bool) -> None:
    assert matches(selector, {"a": "1"}) == chosen


def test_the_role_of_the_readme_has_every_kind_that_an_operator_brings() -> None:
    (listed,) = re.findall(r"--resource=(\S+)", README)
    objects = [manifest for folder in (*OVERLAYS, "monitoring") for manifest in render(K8S / folder)]
    kinds = {(manifest["kind"], manifest["apiVersion"].partition("/")[0]) for manifest in objects}
    brought = {f"{kind.lower()}s.{group}" for kind, group in kinds if "." in group and not group.endswith(".k8s.io")}
    assert set(listed.split(",")) == brought


def test_local_fits_a_node_of_two_cores_with_one_reserved_while_everything_rolls() -> None:
    local = render(K8S / "overlays/local")
    assert together([always(local), surge(local)])["cpu"] <= 2 - 0.95


@every_overlay
def test_the_room_that_the_readme_states_is_what_the_pods_ask_for(overlay: str) -> None:
    manifests = render(K8S / overlay)
    (row,) = re.findall(rf"^\| `{overlay}` \| (\d.*?) \| (.*?) \|$", README, re.MULTILINE)
    for stated, needed in zip(row, (always(manifests), surge(manifests)), strict=True):
        devices = {name: amount for name, amount in needed.items() if name == "nvidia.com/gpu"}
        gpus = "".join(f", {amount:.0f} GPU" for amount in devices.values())
        cpu = f"{needed['cpu']:.0f}" if needed["cpu"].is_integer() else f"{needed['cpu'] * 1000:.0f}m"
        assert stated == f"{cpu} CPU, {needed['memory'] / MI:.0f}Mi{gpus}"


def test_a_pod_asks_for_its_sidecars_beside_the_rest_or_for_its_largest_start() -> None:
    """export alone, then Triton and the worker beside each other."""
    manifests = render(K8S / "base")
    inference = workload(manifests, "vqd-inference")
    assert of_pod(inference)["cpu"] == 2.25
    inference.container("export")["resources"]["requests"]["cpu"] = "3"
    assert of_pod(inference)["cpu"] == 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_nobody_is_told_to_restart_redis_and_its_callers_beside_each_other(page: Path) -> None:
    """With no room for the new pods beside the old ones they take Redis' place, and wait for it."""
    assert not re.search(r"rollout restart \S*statefulset", page.read_text())
