"""What one client's connection may cost, and what its HTTP may look like."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator

import pytest
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)

from service.gateway.connection import Connection, Seldom
from service.gateway.server import OTHER_DESCRIPTORS, limits_of
from service.settings import Settings

BODY = json.dumps({"prompt": "red apple"}).encode()
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
POST = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n"


@contextlib.contextmanager
def connected(gateway: RunningGateway) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=15) as client:
        yield client


def read_all(client: socket.socket) -> bytes:
    """Until the gateway closes."""
    data = b""
    while chunk := client.recv(65536):
        data += chunk
    return data


def talk(gateway: RunningGateway, *pieces: bytes) -> bytes:
    """Send the pieces apart; what comes back until the gateway closes."""
    with connected(gateway) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            client.sendall(piece)
            time.sleep(0.02 if len(pieces) > 1 else 0)
        return read_all(client)


def statuses(data: bytes) -> list[int]:
    return [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]]


CLOSE = b"Connection: close\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
LAST = HEALTHZ + CLOSE + b"\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        [POST + UPGRADE + LENGTH % len(BODY) + BODY + LAST],
        [POST + UPGRADE, LENGTH % len(BODY), BODY[:5], BODY[5:], LAST],
        [POST + UPGRADE + CHUNKED + LAST],
        [POST + b"connection: keep-alive,upgrade\r\nUPGRADE: websocket\r\n" + LENGTH % len(BODY) + BODY, LAST],
        [(POST + UPGRADE + LENGTH % len(BODY) + BODY) + HEALTHZ + UPGRADE + b"\r\n" + LAST],
    ],
)
def test_an_offer_to_upgrade_is_ignored(gateway: RunningGateway, worker: TinyWorker, pieces: list[bytes]) -> None:
    assert set(statuses(talk(gateway, *pieces))) == {200}


def test_an_upgrade_that_also_closes(gateway: RunningGateway, worker: TinyWorker) -> None:
    closing = UPGRADE.replace(b"Upgrade, ", b"close, Upgrade, ")
    assert statuses(talk(gateway, POST + closing + LENGTH % len(BODY) + BODY)) == [200]


def test_connect_is_no_upgrade(gateway: RunningGateway) -> None:
    for target in (b"example.org:443", b"/healthz"):
        data = talk(gateway, b"CONNECT %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n" % (target, CLOSE))
        assert statuses(data)[0] in (400, 404, 405)


def test_head_and_body_are_sent_without_delay(gateway: RunningGateway) -> None:
    with connected(gateway) as client:
        assert served_socket(gateway, client).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def served_socket(gateway: RunningGateway, client: socket.socket) -> socket.socket:
    """The gateway's end of a new connection, its only one."""
    client.sendall(HEALTHZ + b"\r\n")
    client.recv(1000)
    [connection] = [c for c in gateway.server.server_state.connections if isinstance(c, Connection)]
    found: socket.socket = connection.transport.get_extra_info("socket")
    return found


@pytest.mark.parametrize(
    "pieces",
    [
        [HEALTHZ + b"X: " + b"a" * 70_000 + b"\r\n\r\n"],
        [HEALTHZ + b"X: " + b"a" * 70_000, b"a" * 10],
        [HEALTHZ + b"".join(b"X%d: y\r\n" % number for number in range(9000)) + b"\r\n"],
        [b"GET /" + b"a" * 70_000],
        [HEALTHZ + b"\r\n", HEALTHZ + b"X: " + b"a" * 70_000],
    ],
)
def test_a_head_that_is_too_large(gateway: RunningGateway, pieces: list[bytes]) -> None:
    data = talk(gateway, *pieces)
    assert statuses(data)[-1] == 431
    assert b"application/problem+json" in data


def test_a_large_head_and_a_large_body_are_fine(gateway: RunningGateway, worker: TinyWorker) -> None:
    body = BODY.ljust(4096)
    head = POST + CLOSE + b"X: " + b"a" * 60_000 + b"\r\n" + LENGTH % len(body)
    assert statuses(talk(gateway, head + body)) == [200]
    assert statuses(talk(gateway, head[:50_000], head[50_000:], body)) == [200]


@pytest.fixture
def hasty(settings: Settings) -> Iterator[RunningGateway]:
    running = RunningGateway(settings.model_copy(update={"request_timeout_s": 0.3, "max_connections": 20}))
    yield running
    running.close()


@pytest.mark.parametrize(
    "begun",
    [
        b"G",
        HEALTHZ,
        HEALTHZ + b"X: a",
        POST + LENGTH % 100,
        POST + LENGTH % 100 + b"{",
        POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n",
        LAST.replace(b"close", b"keep-alive") + b"GET",
    ],
)
def test_a_request_that_is_not_finished(hasty: RunningGateway, begun: bytes) -> None:
    began_s = time.monotonic()
    assert statuses(talk(hasty, begun))[-1] == 408
    assert 0.2 < time.monotonic() - began_s < 5
    until(lambda: not hasty.server.server_state.tasks)


def test_nor_is_the_one_behind_another_that_came_in_pieces(hasty: RunningGateway) -> None:
    assert statuses(talk(hasty, HEALTHZ, b"\r\n", b"GET")) == [200, 408]


def test_bytes_that_come_one_by_one_buy_no_time(hasty: RunningGateway) -> None:
    began_s = time.monotonic()
    with connected(hasty) as client, contextlib.suppress(ConnectionError):
        client.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
        while time.monotonic() - began_s < 10:
            client.sendall(b"a")
            time.sleep(0.05)
    assert time.monotonic() - began_s < 5


def test_a_hangup_within_the_body_is_no_bug(gateway: RunningGateway, caplog: pytest.LogCaptureFixture) -> None:
    with connected(gateway) as client:
        client.sendall(POST + LENGTH % 100 + b"{")
        until(lambda: gateway.server.server_state.tasks)
    line = 'vqd_http_requests_total{method="POST",route="/generate",status="0"}'
    until(lambda: gateway.metric(line) == 1)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_silent_clients_make_room(hasty: RunningGateway) -> None:
    """The one that has been silent for longest goes; who is being answered stays."""
    silent = [socket.create_connection(("127.0.0.1", hasty.port)) for _ in range(60)]
    try:
        for client in silent[:30]:
            client.sendall(b"GET")
        for _ in range(5):
            assert statuses(talk(hasty, LAST)) == [200]
        assert len(hasty.server.server_state.connections) <= 21
    finally:
        for client in silent:
            client.close()


def test_who_is_being_answered_is_not_sent_away(settings: Settings) -> None:
    running = RunningGateway(settings.model_copy(update={"max_connections": 2}))
    worker = TinyWorker(settings)
    worker.hold.set()
    try:
        until(lambda: running.http.get("/readyz").status_code == 200)
        with connected(running) as one, connected(running) as two:
            for client in (one, two):
                client.sendall(POST + CLOSE + LENGTH % len(BODY) + BODY)
            until(lambda: len(worker.taken) == 1 and len(running.server.server_state.tasks) == 2)
            refused = talk(running, LAST)
            assert statuses(refused) == [503]
            assert b"retry-after: 1" in refused
            worker.hold.clear()
            assert statuses(read_all(one)) == statuses(read_all(two)) == [200]
    finally:
        worker.hold.clear()
        worker.close()
        running.close()


def test_a_client_that_takes_nothing_of_its_answer_is_gone(hasty: RunningGateway) -> None:
    hasty.limits.stalled_s = 0.2
    with connected(hasty) as client:
        served_socket(hasty, client).setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(100):
            client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: not hasty.server.server_state.connections)


def test_a_client_that_reads_again_is_not_gone(gateway: RunningGateway) -> None:
    with connected(gateway) as client:
        served_socket(gateway, client).setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3 + LAST)
        [connection] = [c for c in gateway.server.server_state.connections if isinstance(c, Connection)]
        timer = until(lambda: connection.stalled)
        assert len(statuses(read_all(client))) == 4
        assert timer.cancelled()


def test_something_else_than_http(gateway: RunningGateway) -> None:
    assert statuses(talk(gateway, b"\x16\x03\x01\x02\x00\x01\x00")) == [400]
    assert statuses(talk(gateway, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")) == [400]


GETS = ["/healthz", "/readyz", "/metrics", "/v1/models", "/docs", "/jobs/ID", "/jobs/ID/images/0"]


@pytest.mark.parametrize("path", GETS)
def test_head_is_get_without_the_body(gateway: RunningGateway, worker: TinyWorker, path: str) -> None:
    address = path.replace("ID", gateway.ask().json()["id"])
    got, head = gateway.http.get(address), gateway.http.head(address)
    assert (head.status_code, head.content) == (200, b"")
    volatile = ("x-request-id", "date", *(["content-length"] if path == "/metrics" else []))
    assert {name: value for name, value in head.headers.items() if name not in volatile} == {
        name: value for name, value in got.headers.items() if name not in volatile
    }


def test_head_of_a_stream_ends_at_once(gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.hold.set()
    job_id = gateway.start()
    head = gateway.http.head(f"/jobs/{job_id}/events")
    assert (head.status_code, head.headers["Content-Type"].partition(";")[0]) == (200, "text/event-stream")
    until(lambda: not gateway.gateway.feeds.listeners)
    assert gateway.metric('vqd_http_requests_total{method="HEAD",route="/jobs/{job_id}/events",status="200"}') == 1
    worker.hold.clear()


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("OPTIONS", "/jobs/x", "DELETE, GET, HEAD"),
        ("POST", "/jobs/x/events", "GET, HEAD"),
        ("HEAD", "/generate", "POST"),
        ("POST", "/docs", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_all_that_are_right(gateway: RunningGateway, method: str, path: str, allow: str) -> None:
    answer = gateway.http.request(method, path)
    assert (answer.status_code, sorted(answer.headers["Allow"].split(", "))) == (405, allow.split(", "))


def test_no_slash_is_redirected_to_what_the_client_calls_our_host(gateway: RunningGateway) -> None:
    for host, status in (("localhost:1", 404), ("evil.example", 421)):
        answer = gateway.http.get("/jobs/a/events/", headers={"Host": host})
        assert (answer.status_code, "location" in answer.headers) == (status, False)


def test_few_descriptors_mean_few_connections(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(max_connections=1000)
    assert limits_of(settings, 1000 + OTHER_DESCRIPTORS).connections == 1000
    assert limits_of(settings, -1).connections == 1000
    assert not caplog.records
    assert limits_of(settings, 256).connections == 256 - OTHER_DESCRIPTORS
    assert limits_of(settings, 100).connections == 16
    assert "VQD_MAX_CONNECTIONS=1000" in caplog.text


def test_some_descriptors_are_set_aside_however_near_the_limit_is() -> None:
    """One too few of them is one connection less."""
    assert limits_of(Settings(max_connections=1000), 1000 + OTHER_DESCRIPTORS - 1).connections == 999


def test_what_happens_thousands_of_times_is_a_line_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    seldom = Seldom()
    assert [seldom() for _ in range(3)] == [True, False, False]
    now_s = 1.0
    assert [seldom() for _ in range(3)] == [True, False, False]
