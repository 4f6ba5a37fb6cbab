"""What the rendered NetworkPolicies let through, as Kubernetes defines them."""

from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from manifests import Manifest, of_kind, selects

HERE = {"kubernetes.io/metadata.name": "vqd"}


@dataclass(frozen=True)
class Peer:
    """A pod with its labels and its namespace's, or, with an address, something outside the cluster."""

    labels: dict[str, str] = field(default_factory=dict)
    namespace: dict[str, str] = field(default_factory=lambda: HERE)
    address: str = ""


def allowed(manifests: list[Manifest], source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Both ends must agree: the source's policies let it out, the target's let it in."""
    policies = [policy["spec"] for policy in of_kind(manifests, "NetworkPolicy")]
    return passes(policies, "Egress", source, target, (port, protocol)) and passes(
        policies, "Ingress", target, source, (port, protocol)
    )


def passes(policies: list[Manifest], way: str, subject: Peer, other: Peer, port: tuple[int, str]) -> bool:
    """An end that no policy selects is open; otherwise some rule must name the other end and the port."""
    about = [policy for policy in policies if way in policy["policyTypes"] and concerns(policy, subject)]
    rules = [rule for policy in about for rule in policy.get(way.lower(), [])]
    peers = "to" if way == "Egress" else "from"
    return not about or any(
        any(is_peer(peer, other) for peer in rule[peers])
        and port in [(each["port"], each.get("protocol", "TCP")) for each in rule["ports"]]
        for rule in rules
    )


def concerns(policy: Manifest, subject: Peer) -> bool:
    return not subject.address and subject.namespace == HERE and selects(policy["podSelector"], subject.labels)


def is_peer(peer: Manifest, other: Peer) -> bool:
    if "ipBlock" in peer or other.address:
        block = peer.get("ipBlock")
        return bool(block and other.address) and in_block(block, other.address)
    if "namespaceSelector" not in peer and other.namespace != HERE:
        return False
    return selects(peer.get("namespaceSelector", {}), other.namespace) and selects(
        peer.get("podSelector", {}), other.labels
    )


def in_block(block: Manifest, address: str) -> bool:
    found = [
        network for network in (block["cidr"], *block.get("except", ())) if ip_address(address) in ip_network(network)
    ]
    return found == [block["cidr"]]
