"""What the logs of real processes say of keys, at DEBUG: who asked, and never with what."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from commands import vqd
from fleet import Fleet, serving
from gateway_harness import until
from key_support import Keyring, bearer

from service.gateway.access.tokens import mint

FILED = "another-kind-of-key-that-nobody-would-guess"


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Iterator[Fleet]:
    (tmp_path / "keys").write_text(FILED)
    started = Fleet(redis_url, tmp_path, log_level="DEBUG", key_file=tmp_path / "keys", api_key=mint().token)
    started.start_worker()
    yield started
    started.close()


@pytest.fixture
def ring(fleet: Fleet) -> Iterator[Keyring]:
    keyring = Keyring(fleet.settings)
    yield keyring
    keyring.close()


def test_a_line_has_the_keys_id_and_no_line_a_secret(fleet: Fleet, ring: Keyring, tmp_path: Path) -> None:
    boss, reader, revoked, unknown = ring.make("admin"), ring.make("read"), ring.revoked(), mint()
    headers = [bearer(boss), {"X-API-Key": FILED}, bearer(reader), bearer(revoked), bearer(unknown), {}]
    with serving(fleet) as client:
        told = [ask(client, some, f"request-{number}") for number, some in enumerate(headers)]
        lines = until(lambda: len(lines := asked(fleet)) == len(headers) and lines)
    assert told == [200, 200, 403, 401, 401, 401]
    said = {line["request_id"]: line.get("key") for line in lines}
    keys = [boss.id, "file-1", reader.id, revoked.id, None, None]
    assert said == {f"request-{number}": key for number, key in enumerate(keys)}
    everything = repr(fleet.log_lines("gateway") + fleet.log_lines("worker-1"))
    everything += "".join(vqd("keys", *words, cwd=tmp_path, **fleet.environment).stderr for words in (["list"], ["x"]))
    for secret in (FILED, *(one.token.rpartition("_")[2] for one in (boss, reader, revoked, unknown))):
        assert secret not in everything
    assert fleet.environment["VQD_API_KEY"] not in everything


def asked(fleet: Fleet) -> list[dict[str, Any]]:
    return [line for line in fleet.log_lines("gateway") if line.get("route") == "/generate"]


def ask(client: httpx.Client, headers: dict[str, str], request_id: str) -> int:
    body = {"prompt": "a red circle"}
    return client.post("/generate", json=body, headers=headers | {"X-Request-Id": request_id}).status_code


def test_a_key_file_alone_closes_a_gateway_on_loopback(fleet: Fleet) -> None:
    with serving(fleet) as client:
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers={"X-API-Key": FILED}).status_code == 200
