"""Requests whose webhooks go to names that nobody answers for: a real gateway, and a name server as a test wants it."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    tiny_worker,
    until,
)
from key_support import Keyring, bearer
from receiver import Receiver

from service.gateway.webhooks.lookups import OF_ONE
from service.gateway.webhooks.targets import Targets
from service.settings import Settings


async def names(host: str) -> Sequence[str]:
    if host.endswith(".silent.test"):
        await asyncio.sleep(3600)
    return ["127.0.0.1"]


@pytest.fixture(name="gateway")
def sending_gateway(settings: Settings) -> Iterator[RunningGateway]:
    told = {"webhook_secret": "whsec_" + "c2VjcmV0" * 4, "webhook_http": True, "webhook_hosts": "localhost,*.test"}
    running = RunningGateway(settings.model_copy(update=told))
    running.gateway.webhook_targets = Targets(running.gateway.settings, names)
    running.gateway.webhook_targets.lookups.wait_s = 0.2
    yield running
    running.close()


def test_a_key_with_silent_names_is_told_so_and_holds_up_nobody(
    gateway: RunningGateway, worker: TinyWorker, settings: Settings
) -> None:
    ring = Keyring(settings)
    alice, bob = bearer(ring.make(name="alice")), bearer(ring.make(name="bob"))
    ring.close()

    def ask(key: dict[str, str], host: str, path: str = "/generate") -> httpx.Response:
        body = {"prompt": "a red circle", "webhook_url": f"http://{host}/marked-zq9w"}
        return gateway.http.post(path, json=body, headers=key)

    with ThreadPoolExecutor(OF_ONE) as clients:
        silent = list(clients.map(lambda number: ask(alice, f"{number}.silent.test"), range(OF_ONE)))
    for answer in silent:
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5"), answer.text
        assert "webhook_url: no name server answers" in answer.json()["detail"]
    refused = ask(alice, "good.test")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    assert "webhook_url" in refused.json()["detail"]
    spoken = ask(alice, "good.test", "/v1/images/generations")
    assert (spoken.status_code, spoken.headers["x-should-retry"]) == (429, "true")
    assert "zq9w" not in refused.text + spoken.text + silent[0].text
    assert ask(bob, "good.test").status_code == 200
    with Receiver() as receiver:  # deliveries have look-ups of their own
        gateway.gateway.webhook_targets = Targets(gateway.gateway.settings)
        gateway.start(alice, webhook_url=receiver.url)
        until(lambda: receiver.got)


def test_a_url_that_is_wrong_on_its_face_is_said_before_a_picture_is_decoded(
    gateway: RunningGateway, worker: TinyWorker
) -> None:
    picture = "bm8gcGljdHVyZQ=="
    wrong = gateway.ask(image=picture, webhook_url="ftp://localhost/")
    assert [error["field"] for error in wrong.json()["errors"]] == ["webhook_url"]
    later = gateway.ask(image=picture, webhook_url="http://1.silent.test/")
    assert [error["field"] for error in later.json()["errors"]] == ["image"], "a name takes longer than a picture"
