"""The nginx example of docs/operations.md agrees with the gateway behind it."""

import re
from pathlib import Path

from service.gateway.connection import IDLE_S
from service.gateway.sse import HEARTBEAT_S
from service.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs/operations.md").read_text()
EXAMPLE = re.findall(r"^```nginx\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)[0]


def said(directive: str) -> str:
    (value,) = re.findall(rf"^ *{directive} +(.*?);", EXAMPLE, flags=re.MULTILINE)
    return str(value)


def seconds(directive: str) -> int:
    return int(said(directive).removesuffix("s"))


def test_the_proxy_waits_for_longer_than_the_gateway_takes() -> None:
    assert seconds("proxy_read_timeout") > Settings().sync_wait_s + 5
    assert seconds("proxy_read_timeout") > 2 * HEARTBEAT_S


def test_it_is_the_proxy_that_closes_idle_connections() -> None:
    assert seconds("keepalive_timeout") < IDLE_S


def test_what_the_gateway_would_refuse_is_not_sent_there() -> None:
    settings = Settings()
    both_in_base64 = 2 * settings.max_image_bytes * 4 / 3 + settings.max_body_bytes
    allowed = int(said("client_max_body_size").removesuffix("m")) * 2**20
    assert both_in_base64 <= allowed < both_in_base64 + 2**20


def test_the_prefix_is_taken_away_and_is_the_one_that_the_gateway_is_told() -> None:
    assert said("proxy_pass").endswith("/")
    (prefix,) = re.findall(r"location (/\S+)/ \{", EXAMPLE)
    assert f"`VQD_ROOT_PATH={prefix}`" in PAGE
    assert f"`VQD_ALLOWED_HOSTS={said('server_name')}`" in PAGE
    assert "proxy_set_header Host $http_host;" in EXAMPLE
