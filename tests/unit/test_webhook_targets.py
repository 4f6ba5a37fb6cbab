"""Where webhooks may go: names, addresses, and one look-up for both the check and the connection."""

from collections.abc import Sequence

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from service.errors import InvalidRequest, SetupError
from service.gateway.webhooks.signing import secret_of, secrets_of, signed
from service.gateway.webhooks.targets import Targets, is_public, matches
from service.settings import Settings, read_settings

pytestmark = pytest.mark.anyio
SECRET = "whsec_" + "c2VjcmV0" * 4
NEXT = "whsec_" + "bmV3ZXN0" * 4


CLOSED = [
    *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1"),
    *("169.254.169.254", "224.0.0.1", "239.1.1.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::"),
    *("192.0.0.192", "168.63.129.16", "192.88.99.1", "100.100.100.200", "198.51.100.1", "203.0.113.1"),
    *("fec0::1", "64:ff9b:1::7f00:1", "::7f00:1", "2001:0:7f00::1", "2001:1::1", "3fff::1", "100::1", "4000::1"),
    *("::ffff:0:10.0.0.1", "::ffff:169.254.169.254", "::ffff:168.63.129.16", "2002:a83f:8110::", "ff0e::1"),
]
OPEN = ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "2a00:1450::1"]
BEHIND_NAT64 = "64:ff9b::101:101"
MEANT = ["::ffff:1.1.1.1", BEHIND_NAT64, "2002:101:101::"]
"""Public IPv4 addresses, as a network with IPv6 writes them."""


@pytest.mark.parametrize("address", CLOSED)
def test_an_address_that_is_not_everybodys_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", [*OPEN, *MEANT])
def test_others_are(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("host", "pattern", "does"),
    [
        ("a.example.com", "a.example.com", True),
        ("A.example.com.", "a.example.com", True),
        ("b.a.example.com", "*.example.com", True),
        ("example.com", "*.example.com", False),
        ("badexample.com", "*.example.com", False),
        ("example.com.evil.org", "example.com", False),
        ("::1", "[::1]", True),
    ],
)
def test_names(host: str, pattern: str, does: bool) -> None:
    assert matches(host, pattern) is does


def targets(*addresses: str, **settings: object) -> Targets:
    """Whose name server says these."""

    async def resolve(host: str) -> Sequence[str]:
        if not addresses:
            raise OSError("marked-zq9w")
        return addresses

    return Targets(Settings(webhook_secret=SECRET, **settings), resolve)  # type: ignore[arg-type]


async def test_a_name_with_one_address_that_is_not_public_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="not public"):
        await targets("1.1.1.1", "10.0.0.1").check("https://example.com/")
    found = await targets("1.1.1.1", "2606:4700::1111").check("https://example.com/a?b")
    assert (str(found.url), found.addresses) == ("https://example.com/a?b", ("1.1.1.1", "2606:4700::1111"))


async def test_a_listed_name_may_be_anywhere() -> None:
    found = await targets("10.0.0.1", webhook_hosts="*.internal").check("https://hooks.internal/")
    assert found.addresses == ("10.0.0.1",)


async def test_a_name_server_that_is_away() -> None:
    with pytest.raises(InvalidRequest, match="no address that could be found") as caught:
        await targets().check("https://example.com/")
    assert "zq9w" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        *((f"https://example.com:{port}/", "its port must be from 1 to 65535") for port in (0, 65536, 99999)),
        *((f"https://{host}/", "must be a URL") for host in ("☃", "a b", "a%00b", "*", "a,b", "‥")),
        *((f"https://{host}/", "must be a URL") for host in ("a..b", ".a", "a" * 64, "[fe80::1%25eth0]", "[v1.a]", "")),
        *((url, "must be a URL") for url in ("https://a/\udc80", "https:/a", "//a/", "https://a\tb/", "https://a:b/")),
        ("https://:@example.com/", "must have no user"),
    ],
)
async def test_an_odd_url_is_an_error_of_its_field(url: str, why: str) -> None:
    """And none of a library's own, which would be a 500."""
    with pytest.raises(InvalidRequest, match=why) as caught:
        await targets("1.1.1.1").check(url)
    assert caught.value.field == "webhook_url"


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("https://EXAMPLE.com./a", "example.com"),
        ("https://faß.example/", "xn--fa-hia.example"),
        ("https://a_b.example:8443/", "a_b.example"),
        ("https://[2606:4700::1111]/", "2606:4700::1111"),
        ("https://2130706433/", "2130706433"),
        ("https://xn--a/", "xn--a"),  # which no library can decode
    ],
)
async def test_the_name_is_looked_up_as_it_is_sent(url: str, asked: str) -> None:
    names = []

    async def resolve(host: str) -> Sequence[str]:
        names.append(host)
        return ["1.1.1.1"]

    found = await Targets(Settings(webhook_secret=SECRET), resolve).check(url)
    assert (names, found.host) == ([asked], asked)


@pytest.mark.parametrize(
    "url", ["vqd.example.com", "https://vqd.example.com/", "https://u:p@vqd", "ftp://vqd", "https://vqd:x", "https://"]
)
def test_a_public_url_of_another_form_is_refused(url: str) -> None:
    with pytest.raises(SetupError, match="VQD_PUBLIC_URL"):
        read_settings(public_url=url)
    assert read_settings(public_url="HTTPS://[::1]:8443").public_url == "https://[::1]:8443"


@pytest.mark.parametrize("secret", ["marked-zq9w", "whsec_", "whsec_bWFya2VkLXpxOXc=", "whsec_!", SECRET[6:]])
def test_a_secret_of_another_form_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(SetupError, match=r"VQD_WEBHOOK_SECRET: .*whsec_ and then 24 to 64") as caught:
        read_settings(webhook_secret=secret)
    assert secret == "whsec_" or secret not in str(caught.value)
    with pytest.raises(SetupError, match=r"VQD_WEBHOOK_SECRET: .*whsec_ and then 24 to 64") as caught:
        read_settings(webhook_secret=f"{SECRET},{secret}")
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(Settings(webhook_secret=SECRET))


def test_secrets_of_keys_differ_and_stay() -> None:
    assert secret_of(SECRET, "a") == secret_of(SECRET, "a") != secret_of(SECRET, "b")
    assert SECRET not in {secret_of(SECRET, "a"), secret_of(SECRET, "")}


def test_all_secrets_sign_and_the_newest_is_told() -> None:
    """So that a receiver may change its own at any time while there are two."""
    newest, former = secrets_of(f"{NEXT}, {SECRET}", "a")
    assert (newest, former) == (secret_of(NEXT, "a"), secret_of(SECRET, "a"))
    headers = signed([newest, former], "msg_1", "{}")
    assert [part[:3] for part in headers["webhook-signature"].split(" ")] == ["v1,", "v1,"]
    for secret in (newest, former):
        Webhook(secret).verify("{}", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret_of(NEXT, "b")).verify("{}", headers)


def test_a_secret_alone_or_several_are_taken() -> None:
    for told in ("", SECRET, f"{NEXT},{SECRET}", f" {NEXT} , {SECRET} "):
        assert read_settings(webhook_secret=told).webhook_secret == told


def test_commas_alone_are_no_secret() -> None:
    with pytest.raises(SetupError, match="VQD_WEBHOOK_SECRET"):
        read_settings(webhook_secret=" , ")
