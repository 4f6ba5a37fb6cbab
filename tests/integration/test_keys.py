"""Who is let in: every route with every kind of wrong key, in the same time, and with the right one."""

import re
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    Background,
    RunningGateway,
    TinyWorker,
    gateway_settings,
    until,
)
from key_support import Keyring, bearer, status

from service.errors import RedisUnavailable, Unauthorized
from service.gateway.access.identity import Scope
from service.gateway.access.known import FIRST_KEY, NEEDED, REFUSED, REMEMBERED_S, KnownKeys
from service.gateway.access.scopes import OPEN, OPEN_IN_PART, SCOPES, name_of
from service.gateway.access.tokens import Minted, mint
from service.gateway.app import create_app
from service.gateway.openai.errors import speaks
from service.local.redis import RedisServer
from service.queue.api_keys import ApiKeys
from service.queue.store import Store
from service.settings import Settings

OPEN_PATHS = {"/healthz", "/readyz", "/", "/docs", "/redoc", "/assets/{digest}/{name}", "/openapi.json"}
FILED = "a key of a file need not look like one".replace(" ", "-")
PLACES = {"job_id": "some-job", "index": "0", "digest": "0" * 16, "name": "docs.js", "model": "shapes"}
APP = create_app(Settings(key_file=None))
ROUTES = [(route.path, method, name_of(route)) for route in APP.state.routes for method in route.methods]
GUARDED = [(path, method, name) for path, method, name in ROUTES if path not in OPEN_PATHS]
TOO_LITTLE = {
    Scope.READ: [Scope.METRICS],
    Scope.GENERATE: [Scope.READ, Scope.METRICS],
    Scope.METRICS: [Scope.GENERATE, Scope.READ],
}
"""All scopes that do not allow it."""


@pytest.fixture
def ring(settings: Settings) -> Iterator[Keyring]:
    keyring = Keyring(settings)
    yield keyring
    keyring.close()


@pytest.fixture
def gateway(settings: Settings, ring: Keyring) -> Iterator[RunningGateway]:
    """With a key, so that it asks for one."""
    ring.make("admin", name="first")
    running = RunningGateway(settings)
    yield running
    running.close()


def ask(gateway: RunningGateway, path: str, method: str = "GET", headers: Any = None) -> httpx.Response:
    sent = {"prompt": "a red circle"} if method == "POST" else None
    return gateway.http.request(method, path.format(**PLACES), json=sent, headers=headers)


def problem(response: httpx.Response, status: int) -> str:
    """The detail of a refusal."""
    body = response.json()
    kind = {401: "unauthorized", 403: "forbidden"}[status]
    if speaks({"type": "http", "path": response.url.path}):
        assert (response.status_code, body["error"]["code"]) == (status, kind), response.text
        return str(body["error"]["message"])
    assert (response.status_code, body["type"]) == (status, f"urn:vqd:problem:{kind}"), response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers.get("WWW-Authenticate") == ("Bearer" if status == 401 else None)
    return str(body["detail"])


def test_every_route_is_named_with_what_it_asks_for() -> None:
    """One that is not asks for admin, and is not meant to."""
    named = OPEN | SCOPES.keys()
    assert {name for _, _, name in ROUTES} == named
    assert len(named) == len(OPEN) + len(SCOPES)
    assert SCOPES.keys() - OPEN >= OPEN_IN_PART


def test_the_document_has_every_route_that_asks_for_a_key(gateway: RunningGateway) -> None:
    paths = gateway.http.get("/openapi.json").json()["paths"]
    described = {(path, method.upper()) for path, operations in paths.items() for method in operations}
    assert described - {(path, "GET") for path in OPEN_PATHS} == {(path, method) for path, method, _ in GUARDED}


def test_open_routes_are_these_and_no_other(gateway: RunningGateway) -> None:
    opened = {path for path, method, _ in ROUTES if ask(gateway, path, method).status_code != 401}
    assert opened == OPEN_PATHS
    for path, method in product(OPEN_PATHS, ("POST", "PUT", "DELETE", "OPTIONS")):
        assert ask(gateway, path, method).status_code == 405


def test_no_wrong_key_opens_any_route(gateway: RunningGateway, ring: Keyring) -> None:
    valid = ring.make("generate")
    wrong = [mint().token, mint(valid.id).token, valid.token[:-1], valid.digest, valid.id, FILED]
    wrong += [ring.expired().token, ring.revoked().token]
    for path, method, _ in GUARDED:
        assert problem(ask(gateway, path, method), 401) == NEEDED
        for token in wrong:
            for headers in ({"Authorization": f"Bearer {token}"}, {"X-API-Key": token}):
                assert problem(ask(gateway, path, method, headers), 401).startswith(REFUSED)
        assert problem(ask(gateway, path, method, {"Authorization": f"Basic {valid.token}"}), 401) == NEEDED
        both = bearer(valid) | {"X-API-Key": wrong[0]}
        assert "several API keys" in problem(ask(gateway, path, method, both), 401)


def test_a_key_that_may_do_something_else_is_told_what_is_missing(gateway: RunningGateway, ring: Keyring) -> None:
    for path, method, name in GUARDED:
        minted = ring.make(*TOO_LITTLE[SCOPES[name]])
        detail = problem(ask(gateway, path, method, bearer(minted)), 403)
        assert f"the scope {SCOPES[name]}; yours has " in detail


def test_a_key_with_the_scope_or_admin_is_let_in(gateway: RunningGateway, ring: Keyring) -> None:
    for path, method, name in GUARDED:
        for scope in (SCOPES[name], Scope.ADMIN):
            response = ask(gateway, path, method, bearer(ring.make(scope)))
            assert response.status_code not in (401, 403), (path, scope, response.text)


def test_a_misspelt_key_is_said_to_be_so(gateway: RunningGateway) -> None:
    detail = problem(ask(gateway, "/v1/models", headers={"X-API-Key": mint().token[:-1]}), 401)
    assert "its checksum is wrong" in detail
    assert "checksum" not in problem(ask(gateway, "/v1/models", headers={"X-API-Key": mint().token}), 401)


def test_what_there_is_not_is_told_to_keys_only(gateway: RunningGateway, ring: Keyring) -> None:
    key = bearer(ring.make("generate"))
    for path, method, answer in (("/none", "GET", 404), ("/generate/", "GET", 404), ("/generate", "PUT", 405)):
        assert problem(ask(gateway, path, method), 401) == NEEDED
        assert ask(gateway, path, method, key).status_code == answer


def test_head_needs_the_key_that_get_does(gateway: RunningGateway, ring: Keyring) -> None:
    assert ask(gateway, "/v1/models", "HEAD").status_code == 401
    assert ask(gateway, "/v1/models", "HEAD", bearer(ring.make("metrics"))).status_code == 403
    assert ask(gateway, "/v1/models", "HEAD", bearer(ring.make("read"))).status_code == 200
    assert ask(gateway, "/healthz", "HEAD").status_code == 200


def test_the_body_of_a_request_that_is_refused_is_not_read(gateway: RunningGateway) -> None:
    lines = ("POST /generate HTTP/1.1", "Host: localhost", "Content-Type: application/json", "Content-Length: 1000")
    head = "".join(f"{line}\r\n" for line in (*lines, "")).encode()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=15) as client:
        client.sendall(head)
        assert client.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_a_refusal_is_counted_for_its_route(gateway: RunningGateway, ring: Keyring) -> None:
    for _ in range(3):
        ask(gateway, "/jobs/{job_id}", headers={"X-API-Key": mint().token})
    text = ask(gateway, "/metrics", headers=bearer(ring.make("metrics"))).text
    assert re.search(r'requests_total{method="GET",route="/jobs/{job_id}",status="401"} 3.0', text)


def medians_ms(gateway: RunningGateway, tokens: dict[str, list[str]], rounds: int) -> dict[str, float]:
    """What a refusal takes, asked for in turn so that the machine's moods are the same for all."""
    taken: dict[str, list[float]] = {kind: [] for kind in tokens}
    for round_ in range(rounds):
        for kind, some in tokens.items():
            headers, began = {"X-API-Key": some[round_ % len(some)]}, time.perf_counter()
            assert gateway.http.get("/v1/models", headers=headers).status_code == 401
            taken[kind].append(1000 * (time.perf_counter() - began))
    return {kind: statistics.median(times) for kind, times in taken.items()}


def test_how_a_key_is_wrong_does_not_show_in_the_time(gateway: RunningGateway, ring: Keyring) -> None:
    valid = ring.make("read")
    tokens = {
        "unknown": [mint().token for _ in range(10)],
        "another secret of a known id": [mint(valid.id).token for _ in range(10)],
        "expired": [ring.expired().token],
        "revoked": [ring.revoked().token],
    }
    medians_ms(gateway, tokens, 5)
    told = []
    for _ in range(5):  # what can be seen is seen each time, a busy machine now and then
        medians = medians_ms(gateway, tokens, 100)
        told.append(max(medians.values()) / min(medians.values()))
        if told[-1] < 1.5:
            return
    raise AssertionError(told)


def test_each_refusal_is_one_trip_and_a_known_key_one_a_second(settings: Settings, ring: Keyring) -> None:
    minted, clock, asked = ring.make("read"), [100.0], list[str]()

    class Counting(ApiKeys):
        async def find(self, digest: str) -> Any:
            asked.append(digest)
            return await super().find(digest)

    async def work() -> None:
        store = Store.connect(settings)
        known = KnownKeys(settings, Counting(store), {}, lambda: clock[0])
        for _ in range(5):
            assert (await known.identify(minted.token)).account.owner == minted.id
        assert len(asked) == 1
        clock[0] += REMEMBERED_S
        await known.identify(minted.token)
        assert len(asked) == 2
        for wrong in (mint().token, mint().token[:-1], "x", ring_expired.token):
            before = len(asked)
            with pytest.raises(Unauthorized, match="unknown, or has expired"):
                await known.identify(wrong)
            assert len(asked) == before + 1
        await store.close()

    ring_expired = ring.expired()
    ring.background.call(work())


def test_remembered_keys_are_bounded(settings: Settings, ring: Keyring) -> None:
    async def work() -> int:
        store = Store.connect(settings)
        known = KnownKeys(settings, ApiKeys(store), {}, remembered=3)
        for _ in range(5):
            await known.identify(next(tokens))
        await store.close()
        return len(known.found)

    tokens = iter([ring.make("read").token for _ in range(5)])
    assert ring.background.call(work()) == 3


def test_a_rotation_costs_a_client_no_refusal(gateway: RunningGateway, ring: Keyring) -> None:
    old = ring.make("read")
    using, answers, stop = [old], list[int](), threading.Event()

    def go_on() -> None:
        with httpx.Client(base_url=gateway.url, timeout=30) as client:
            while not stop.is_set():
                answers.append(client.get("/v1/models", headers=bearer(using[-1])).status_code)

    client = threading.Thread(target=go_on)
    client.start()
    until(lambda: len(answers) > 20)
    new = ring.rotate(old, 3_600_000)
    assert [status(gateway, old), status(gateway, new)] == [200, 200]
    using.append(new)
    before = len(answers)
    until(lambda: len(answers) > before + 20)
    stop.set()
    client.join()
    assert set(answers) == {200}
    newest = ring.rotate(new, 0)
    until(lambda: [status(gateway, key) for key in (old, new, newest)] == [401, 401, 200])


def test_a_revocation_is_heard_within_a_second(gateway: RunningGateway, ring: Keyring) -> None:
    minted = ring.make("read")
    assert status(gateway, minted) == 200
    ring.revoke(minted)
    began = time.monotonic()
    until(lambda: status(gateway, minted) == 401)
    assert time.monotonic() - began < REMEMBERED_S + 2  # the rest is for a busy machine


def test_on_loopback_nobody_needs_a_key_until_there_is_one(settings: Settings, ring: Keyring) -> None:
    running = RunningGateway(settings)
    try:
        for headers in ({}, {"Authorization": "Bearer whatever"}, {"X-API-Key": "a", "Authorization": "Bearer b"}):
            assert all(ask(running, path, method, headers).status_code not in (401, 403) for path, method, _ in GUARDED)
        assert [{} in operation["security"] for operation in secured(running)] == [True] * 15
        first = ring.make("read")
        until(lambda: ask(running, "/v1/models").status_code == 401)
        assert status(running, first) == 200
        assert not any({} in operation["security"] for operation in secured(running))
        ring.revoke(first)
        until(lambda: status(running, first) == 401)
        assert problem(ask(running, "/v1/models"), 401) == NEEDED
    finally:
        running.close()


def secured(gateway: RunningGateway) -> list[Any]:
    paths = gateway.http.get("/openapi.json").json()["paths"]
    return [operation for path in paths.values() for operation in path.values() if "security" in operation]


def test_the_document_says_which_key_each_operation_takes(gateway: RunningGateway) -> None:
    whole = gateway.http.get("/openapi.json").json()
    schemes = whole["components"]["securitySchemes"]
    assert {(scheme["type"], scheme.get("scheme"), scheme.get("name")) for scheme in schemes.values()} == {
        ("http", "bearer", None),
        ("apiKey", None, "X-API-Key"),
    }
    operations = {o["operationId"]: o for path in whole["paths"].values() for o in path.values()}
    assert {name for name, operation in operations.items() if "security" not in operation} == OPEN & operations.keys()
    theirs = {"create_image", "edit_image", "read_model", "read_scaled_image"}  # in the form of OpenAI's errors
    for operation in secured(gateway):
        scope = SCOPES[operation["operationId"]]
        media_type = "application/json" if operation["operationId"] in theirs else "application/problem+json"
        assert operation["security"] == [{name: [scope]} for name in schemes]
        for code in ("401", "403"):
            assert f"`{scope}`" in operation["responses"][code]["description"]
            assert set(operation["responses"][code]["content"]) == {media_type}


def test_what_is_served_is_not_told_without_a_key(gateway: RunningGateway, settings: Settings, ring: Keyring) -> None:
    def most(headers: Any = None) -> Any:
        whole = gateway.http.get("/openapi.json", headers=headers).raise_for_status().json()
        return whole["components"]["schemas"]["GenerateRequest"]["properties"]["n"]["anyOf"][0].get("maximum")

    worker, reader = TinyWorker(settings), bearer(ring.make("read"))
    try:
        until(lambda: most(reader) == 4)
        for headers in (None, {"X-API-Key": mint().token}, bearer(ring.make("metrics"))):
            assert most(headers) != 4
    finally:
        worker.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_before_the_first_key_a_refusal_says_how_to_make_it(host: str, settings: Settings, ring: Keyring) -> None:
    """On loopback there is none to be refused."""
    running = RunningGateway(settings.model_copy(update={"host": host}))
    try:
        for headers in ({}, {"X-API-Key": mint().token}):
            response = ask(running, "/v1/models", headers=headers)
            assert response.status_code == 200 if host == "127.0.0.1" else problem(response, 401) == FIRST_KEY
    finally:
        running.close()


def test_everyone_is_served_where_that_is_said(settings: Settings, ring: Keyring) -> None:
    ring.make("read")
    running = RunningGateway(settings.model_copy(update={"host": "0.0.0.0", "allow_unauthenticated": True}))
    try:
        for headers in ({}, {"X-API-Key": mint().token}):
            assert ask(running, "/v1/models", headers=headers).status_code == 200
    finally:
        running.close()


def of_file(settings: Settings, folder: Path) -> RunningGateway:
    (folder / "keys").write_text(f"{mint().token}\n{FILED}\n")
    return RunningGateway(settings.model_copy(update={"key_file": folder / "keys"}))


def test_a_key_of_the_file_has_every_right(settings: Settings, tmp_path: Path) -> None:
    running = of_file(settings, tmp_path)
    try:
        for path, method, _ in GUARDED:
            assert problem(ask(running, path, method), 401) == NEEDED
            assert problem(ask(running, path, method, {"X-API-Key": FILED[:-1]}), 401).startswith(REFUSED)
            assert ask(running, path, method, {"X-API-Key": FILED}).status_code not in (401, 403)
    finally:
        running.close()


def test_without_redis_no_key_of_redis_opens_anything(settings: Settings, tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        own = settings.model_copy(update={"redis_url": server.url})
        keyring, running = Keyring(own), of_file(own, tmp_path)
        try:
            minted: Minted = keyring.make("admin")
            assert status(running, minted) == 200
            server.stop()
            until(lambda: status(running, minted) == 503)
            for path, method, _ in GUARDED:
                assert ask(running, path, method, bearer(minted)).status_code == 503
            assert problem(ask(running, "/v1/models"), 401) == NEEDED
            assert ask(running, "/metrics", headers={"X-API-Key": FILED}).status_code == 200
            assert [ask(running, path).status_code for path in ("/healthz", "/openapi.json")] == [200, 200]
        finally:
            running.close()
            keyring.close()


def test_what_was_known_before_redis_went_holds_without_it(settings: Settings, tmp_path: Path) -> None:
    """Else a service that asks for no keys would answer 503 where it needs no Redis."""

    async def work() -> None:
        store = Store.connect(settings.model_copy(update={"redis_url": server.url}))
        known, fresh = [KnownKeys(settings, ApiKeys(store), {}, lambda: clock[0]) for _ in range(2)]
        assert await known.key_free()
        server.stop()
        for _ in range(3):
            clock[0] += 2 * REMEMBERED_S
            assert await known.key_free()
            with pytest.raises(RedisUnavailable):
                await fresh.key_free()
        await store.close()

    clock = [100.0]
    with RedisServer(tmp_path / "redis") as server:
        Background().call(work())


@pytest.mark.parametrize(("host", "metrics", "then"), [("127.0.0.1", 200, 200), ("0.0.0.0", 503, 401)])
def test_a_gateway_that_never_reached_redis_lets_nobody_in(
    host: str, metrics: int, then: int, settings: Settings, tmp_path: Path
) -> None:
    """There may be keys. Its own figures matter just then, on its own machine."""
    server = RedisServer(tmp_path / "redis")
    running = RunningGateway(settings.model_copy(update={"redis_url": server.url, "host": host}))
    try:
        for path, method, _ in GUARDED:
            assert ask(running, path, method).status_code == (metrics if path == "/metrics" else 503)
        with server:
            until(lambda: ask(running, "/v1/models").status_code == then)
            assert ask(running, "/metrics").status_code == then
    finally:
        running.close()
