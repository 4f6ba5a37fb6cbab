"""Where a webhook may go. A URL is a client's word, and must not open a way into the operator's network."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import httpx

from service.errors import InvalidRequest
from service.gateway.webhooks.lookups import FIELD, Lookups, Resolve, resolve
from service.settings import Settings, listed

NAT64 = IPv6Network("64:ff9b::/96")
UNICAST = IPv6Network("2000::/3")
"""All of IPv6 that was ever given to anybody; not so fec0::/10, which ``ipaddress`` calls global."""
RESERVED = ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "2001::/23", "3fff::/20")
CLOSED = [ip_network(network) for network in RESERVED]
"""Besides what every release of ``ipaddress`` knows: examples, and protocols, two clouds' metadata among them."""
NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?|[0-9a-f.]*:[0-9a-f:.]+")
"""A host as it is sent: in ASCII, without a zone."""
Address = IPv4Address | IPv6Address


def meant(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, where it does."""
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def is_public(text: str) -> bool:
    """Whether anybody may be sent there: not this machine, not a network of one's own, not a cloud's metadata."""
    address = meant(ip_address(text))
    if isinstance(address, IPv6Address) and address not in UNICAST:
        return False
    return address.is_global and not address.is_multicast and not any(address in network for network in CLOSED)


@dataclass(frozen=True)
class Target:
    """``addresses``: those that were looked at; a connection is made to one of them, and the name not asked again."""

    url: httpx.URL
    addresses: Sequence[str] = ()

    @property
    def host(self) -> str:
        """As it is sent, without the dot that only name servers want."""
        return self.url.raw_host.decode().rstrip(".")


class Targets:
    """``hosts``: the names that webhooks may go to, wherever they are; empty: any that has public addresses only."""

    def __init__(self, settings: Settings, resolve: Resolve = resolve) -> None:
        self.hosts, self.http = listed(settings.webhook_hosts), settings.webhook_http
        self.enabled, self.lookups = bool(settings.webhook_secret), Lookups(resolve)

    async def check(self, url: str, caller: str = "") -> Target:
        """``caller``: whose look-up it is, of which there may be so many at once.

        Raises InvalidRequest, QuotaExceeded, Unavailable, whose words have nothing of the URL: it may hold a secret.
        """
        return await self.located(self.named(url), caller)

    def named(self, url: str) -> Target:
        """What can be said before its name is looked up. Raises InvalidRequest."""
        target = Target(self.parse(url))
        if self.hosts and not any(matches(target.host, pattern) for pattern in self.hosts):
            raise InvalidRequest(FIELD, "its host is none that the operator of this service allows")
        return target

    async def located(self, target: Target, caller: str) -> Target:
        """With its addresses. Raises what ``check`` raises."""
        try:
            addresses = await self.lookups.find(target.host, caller)
        except (OSError, UnicodeError) as error:
            raise InvalidRequest(FIELD, "its host has no address that could be found") from error
        if not self.hosts and not all(map(is_public, addresses)):
            raise InvalidRequest(FIELD, "its host has an address that is not public")
        return replace(target, addresses=addresses)

    def parse(self, url: str) -> httpx.URL:
        """Raises InvalidRequest."""
        if not self.enabled:
            raise InvalidRequest(FIELD, "this service sends no webhooks: its operator has set no VQD_WEBHOOK_SECRET")
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, ValueError, UnicodeError) as error:
            raise InvalidRequest(FIELD, "must be a URL") from error
        schemes = ("https", "http") if self.http else ("https",)
        if parsed.scheme not in schemes or not NAME.fullmatch(parsed.raw_host.decode()):
            raise InvalidRequest(FIELD, f"must be a URL that begins with {' or '.join(f'{s}://' for s in schemes)}")
        if parsed.userinfo:
            raise InvalidRequest(FIELD, "must have no user or password; webhooks are signed")
        if parsed.port is not None and not 0 < parsed.port < 65536:
            raise InvalidRequest(FIELD, "its port must be from 1 to 65535")
        return parsed


def matches(host: str, pattern: str) -> bool:
    """``*.example.com`` is every name below it."""
    host, wild = host.lower().rstrip("."), pattern.startswith("*.")
    return host.endswith(pattern[1:]) if wild else host == pattern.strip("[]")
