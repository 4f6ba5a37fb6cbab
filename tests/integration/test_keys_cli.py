"""``vqd keys`` as operators use it, on a real Redis and in front of a real gateway."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import complaint, vqd
from gateway_harness import RunningGateway, TinyWorker, gateway_settings, until  # noqa: F401  one is a fixture

from service.gateway.access.tokens import OURS
from service.settings import Settings
from service.sockets import free_port

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def keys(redis_url: str, tmp_path: Path) -> Run:
    """The command on this Redis."""
    variables = {"VQD_REDIS_URL": redis_url, "VQD_LOG_LEVEL": "DEBUG", "COLUMNS": "200"}
    return lambda *words: vqd("keys", *words, cwd=tmp_path, **variables)


@pytest.fixture
def gateway(settings: Settings) -> Iterator[RunningGateway]:
    running = RunningGateway(settings)
    yield running
    running.close()


def token_of(done: subprocess.CompletedProcess[str]) -> str:
    """Alone on stdout, and nowhere else."""
    assert done.returncode == 0, done.stderr
    token = done.stdout.removesuffix("\n")
    assert OURS.fullmatch(token)
    assert re.fullmatch(r"vqd: note: this is shown once, .*\n", done.stderr)
    return token


def answer(gateway: RunningGateway, token: str) -> int:
    return gateway.http.get("/v1/models", headers={"X-API-Key": token}).status_code


def test_the_life_of_a_key(keys: Run, gateway: RunningGateway) -> None:
    options = ["--scope=read", "--scope=metrics", "--expires=90d", "--weight=2", "--jobs=3", "--cost-per-minute=0"]
    token = token_of(keys("create", "Zoë's laptop", *options))
    key_id = OURS.fullmatch(token)[1]
    until(lambda: gateway.http.get("/v1/models").status_code == 401)
    assert answer(gateway, token) == 200

    [listed] = json.loads(keys("list", "--json").stdout)
    assert listed.pop("expires_ms") - listed["created_ms"] == 90 * 86_400_000
    assert listed.pop("created_ms") <= listed.pop("used_ms")
    assert listed == {
        "id": key_id,
        "name": "Zoë's laptop",
        "scopes": ["read", "metrics"],
        "weight": 2,
        "cost_per_minute": 0,
        "jobs": 3,
        "result_bytes": None,
        "revoked_ms": None,
        "state": "active",
    }
    head, line = keys("list").stdout.splitlines()
    assert head.split()[:3] == ["id", "name", "scopes"]
    moment = r"\d{4}-\d\d-\d\d \d\d:\d\dZ"
    said = rf"{key_id}  Zoë's laptop  read metrics  {moment}  {moment}  {moment}  active  2 +cost/min unlimited, jobs 3"
    assert re.fullmatch(said, line)

    new = token_of(keys("rotate", key_id, "--overlap", "1h"))
    assert [answer(gateway, one) for one in (token, new)] == [200, 200]
    newest = token_of(keys("rotate", key_id, "--overlap", "0"))
    until(lambda: [answer(gateway, one) for one in (token, new, newest)] == [401, 401, 200])

    assert keys("revoke", key_id).stdout == f"{key_id} is revoked\n"
    until(lambda: answer(gateway, newest) == 401)
    assert json.loads(keys("list", "--json").stdout)[0]["state"] == "revoked"
    assert complaint(keys("rotate", key_id)) == f"vqd: key {key_id} is revoked; make a new one"


def test_a_key_that_says_nothing_may_generate_for_ever(keys: Run) -> None:
    token_of(keys("create", "plain"))
    [listed] = json.loads(keys("list", "--json").stdout)
    assert (listed["scopes"], listed["expires_ms"], listed["weight"], listed["jobs"]) == (["generate"], None, 1, None)
    assert keys("list").stdout.splitlines()[1].endswith("  never    never      active  1       usual")


def test_no_keys_are_an_empty_table(keys: Run) -> None:
    assert keys("list").stdout.startswith("id  name  scopes")
    assert json.loads(keys("list", "--json").stdout) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["create", "x", "--expires", "3y"], "--expires: '3y' is no time such as 30m, 24h or 90d, at most 3650d"),
        (["create", "x", "--expires", "0"], "--expires: '0' is no time such as"),
        (["create", "x", "--expires", "4000d"], "--expires: '4000d' is no time such as"),
        (["create", "x", "--weight", "nan"], "--weight: must be a number from 0.01 to 1000"),
        (["create", " "], "NAME: must have 1 to 64 printable characters"),
        (["create", "x" * 65], "NAME: must have 1 to 64 printable characters"),
        (["create", "a\nb"], "NAME: must have 1 to 64 printable characters"),
        (["rotate", "x", "--overlap", "-1h"], "--overlap: '-1h' is no time such as 0, 30m, 24h or 90d"),
        (["rotate", "nobody"], "there is no key nobody; `vqd keys list` shows all"),
        (["revoke", "nobody"], "there is no key nobody; `vqd keys list` shows all"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_right(keys: Run, words: list[str], says: str) -> None:
    assert complaint(keys(*words)).startswith(f"vqd: {says}")
    assert json.loads(keys("list", "--json").stdout) == []


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("--weight", "0", "0.01<=x<=1000"),
        ("--jobs", "-1", "0<=x<=1000000"),
        ("--cost-per-minute", "1000000001", "0<=x<=1000000000"),
        ("--result-bytes", "x", "not a valid int"),
        ("--scope", "everything", "'generate', 'read', 'admin', 'metrics'"),
    ],
)
def test_a_limit_out_of_range_is_named(keys: Run, option: str, value: str, allowed: str) -> None:
    done = keys("create", "x", option, value)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"Invalid value for '{option}'" in done.stderr
    assert allowed in done.stderr


def test_without_redis_it_says_so(tmp_path: Path) -> None:
    away = f"redis://:sesame@127.0.0.1:{free_port()}/0"
    message = complaint(vqd("keys", "create", "x", cwd=tmp_path, VQD_REDIS_URL=away))
    assert message.startswith("vqd: Redis: ")
    assert "sesame" not in message


def test_generate_and_load_send_the_key(keys: Run, gateway: RunningGateway, settings: Settings, tmp_path: Path) -> None:
    token = token_of(keys("create", "boss", "--scope", "admin"))
    until(lambda: gateway.http.get("/v1/models").status_code == 401)
    worker = TinyWorker(settings)
    try:
        until(lambda: gateway.http.get("/readyz").status_code == 200)
        ask = ("generate", "a red circle", "--url", gateway.url, "--out", tmp_path / "pictures")
        refused = complaint(vqd(*ask, cwd=tmp_path))
        assert refused.startswith("vqd: send an API key")
        assert "VQD_API_KEY sets one" in refused
        wrong = complaint(vqd(*ask, cwd=tmp_path, VQD_API_KEY=token[:-1]))
        assert "its checksum is wrong" in wrong
        assert token[:-1] not in wrong
        for done in (vqd(*ask, cwd=tmp_path, VQD_API_KEY=token), vqd(*ask, "--api-key", token, cwd=tmp_path)):
            assert done.returncode == 0, done.stderr
        pressed = vqd("bench", "load", gateway.url, "--requests", "3", cwd=tmp_path, VQD_API_KEY=token)
        assert json.loads(pressed.stdout)["succeeded"] == 3
        unkeyed = json.loads(vqd("bench", "load", gateway.url, "--requests", "2", cwd=tmp_path).stdout)
        assert [error.partition(" ")[0] for error in unkeyed["errors"]] == ["401"]
    finally:
        worker.close()
