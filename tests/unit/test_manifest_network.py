"""The rendered NetworkPolicies let through what is needed, and nothing else."""

import os
import re
from pathlib import Path

import yaml
from manifest_rules import settings_variables
from manifests import K8S, Manifest, overlay, render, selects, workload, workloads
from monitoring_files import MONITORING, load
from network import Peer, allowed
from test_webhook_targets import BEHIND_NAT64, CLOSED, OPEN

from service.gateway.webhooks.targets import CLOSED as RESERVED

PROMETHEUS = Peer({"app.kubernetes.io/name": "prometheus"}, {"kubernetes.io/metadata.name": "monitoring"})
DNS = Peer({"k8s-app": "kube-dns"}, {"kubernetes.io/metadata.name": "kube-system"})
CLIENT = Peer({"vqd-client": "true"})
INGRESS = Peer({"app": "ingress"}, {"kubernetes.io/metadata.name": "ingress", "vqd-client": "true"})
STRANGER = Peer({"app": "stranger"}, {"kubernetes.io/metadata.name": "monitoring"})
NEIGHBOUR = Peer({"app": "neighbour"})
MANAGED = Peer(address="10.20.30.40")
OUTSIDE = Peer(address="93.184.216.34")


def reach(manifests: list[Manifest], ports: list[int]) -> set[tuple[str, str, int]]:
    """Every (from, to, port) that the policies let through."""
    ours = {name: Peer(workload(manifests, f"vqd-{name}").labels) for name in ("gateway", "inference", "redis")}
    others = {"prometheus": PROMETHEUS, "client": CLIENT, "ingress": INGRESS, "stranger": STRANGER}
    others |= {"neighbour": NEIGHBOUR, "outside": OUTSIDE}
    return {
        (source, target, port)
        for source, sender in {**ours, **others}.items()
        for target, receiver in {**ours, **others}.items()
        if source in ours or target in ours
        for port in ports
        if allowed(manifests, sender, receiver, port)
    }


def test_the_network_lets_through_what_is_needed_and_nothing_else(gpu: list[Manifest]) -> None:
    ports = [*(port for each in workloads(gpu) for port in each.ports().values()), 8001, 443]
    assert reach(gpu, ports) == {
        ("client", "gateway", 8080),
        ("ingress", "gateway", 8080),
        ("gateway", "redis", 6379),
        ("inference", "redis", 6379),
        ("prometheus", "gateway", 9090),
        ("prometheus", "inference", 9100),
        ("prometheus", "inference", 8002),
    }


def test_prometheus_scrapes_the_same_ports_everywhere_and_is_let_in(gpu: list[Manifest]) -> None:
    scraped = {}
    for monitor in yaml.safe_load_all((MONITORING / "podmonitors.yaml").read_text()):
        (found,) = [each for each in workloads(gpu) if selects(monitor["spec"]["selector"], each.labels)]
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            port = scraped[endpoint["relabelings"][0]["replacement"]] = found.ports()[endpoint["port"]]
            assert allowed(gpu, PROMETHEUS, Peer(found.labels), port), endpoint["port"]
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in load("prometheus.yml")["scrape_configs"]}
    assert {name: int(target.rpartition(":")[2]) for name, (target,) in jobs.items()} == scraped


def test_names_are_resolved(gpu: list[Manifest]) -> None:
    for each in workloads(gpu):
        resolves = [allowed(gpu, Peer(each.labels), DNS, 53, protocol) for protocol in ("UDP", "TCP")]
        assert resolves == [each.name != "vqd-redis"] * 2, each.name
        assert not allowed(gpu, Peer(each.labels), DNS, 443)


def test_gateway_and_worker_alone_reach_the_storage(tmp_path: Path) -> None:
    with_s3 = overlay(tmp_path, "overlays/gpu", "s3")
    ports = [443, 80, 6379]
    plain = reach(render(K8S / "overlays/gpu"), ports)
    assert reach(with_s3, ports) - plain == {("gateway", "outside", 443), ("inference", "outside", 443)}
    assert not plain - reach(with_s3, ports)


def test_only_gateway_and_worker_get_the_credentials_of_the_storage(tmp_path: Path) -> None:
    told = {"secretRef": {"name": "vqd-s3", "optional": True}}
    with_s3 = overlay(tmp_path, "base", "s3")
    getting = {c["name"] for each in workloads(with_s3) for c in each.containers if told in c.get("envFrom", [])}
    assert getting == {"gateway", "worker"}


def test_the_storage_of_the_readme_is_reached_in_its_namespace_alone(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n# stored/.*?\n(.*?)```", (K8S / "README.md").read_text(), re.DOTALL)
    (tmp_path / "kustomization.yaml").write_text(text.replace("../k8s", os.path.relpath(K8S, tmp_path)))
    stored = render(tmp_path)
    storage = Peer({"app": "minio"}, {"kubernetes.io/metadata.name": "storage"})
    told = settings_variables(stored)
    assert (told["VQD_S3_BUCKET"], told["VQD_S3_ENDPOINT"]) == ("pictures", "https://minio.storage.svc:9000")
    for each in workloads(stored):
        pod = Peer(each.labels)
        assert allowed(stored, pod, storage, 9000) is (each.name != "vqd-redis")
        assert not allowed(stored, pod, OUTSIDE, 443)


def test_a_managed_redis_can_be_reached(own: Path, gpu: list[Manifest]) -> None:
    managed = render(own)
    assert not [m for m in managed if m["metadata"]["name"] == "vqd-redis"]
    for each in workloads(managed):
        pod = Peer(each.labels)
        reached = [allowed(managed, pod, MANAGED, port) for port in (6379, 6380, 26379, 80)]
        assert reached == [True, True, True, False]
        assert not allowed(managed, pod, OUTSIDE, 6379)
        assert not allowed(gpu, pod, MANAGED, 6379)


def test_webhooks_reach_what_their_check_lets_through_and_no_more(tmp_path: Path, gpu: list[Manifest]) -> None:
    sending = overlay(tmp_path, "base", "webhooks")
    gateway, inference = (Peer(workload(sending, f"vqd-{name}").labels) for name in ("gateway", "inference"))
    for address in not_public():
        assert not allowed(sending, gateway, Peer(address=address), 443), address
    for address in [*OPEN, BEHIND_NAT64]:
        receiver = Peer(address=address)
        assert allowed(sending, gateway, receiver, 443), address
        assert not allowed(sending, gateway, receiver, 80)
        assert not allowed(sending, inference, receiver, 443)
        assert not allowed(gpu, gateway, receiver, 443)


def test_the_way_to_the_storage_takes_webhooks_no_further(tmp_path: Path) -> None:
    """Policies add up, and both concern the gateway."""
    (tmp_path / "both").mkdir()
    both = overlay(tmp_path / "both", "base", "s3", "webhooks")
    for name in ("gateway", "inference"):
        pod = Peer(workload(both, f"vqd-{name}").labels)
        for address in not_public():
            assert not allowed(both, pod, Peer(address=address), 443), address
        for address in [*OPEN, BEHIND_NAT64]:
            assert allowed(both, pod, Peer(address=address), 443), address


def not_public() -> list[str]:
    """As a policy sees them: IPv4 is never written as IPv6 there, but behind NAT64."""
    closed = [address for address in CLOSED if "%" not in address and not address.startswith("::ffff:")]
    return closed + [str(network[0]) for network in RESERVED]
