"""What every answer tells browsers, whoever writes it: a route, a guard, a bug, or the connection."""

import re
import socket
from collections.abc import Iterator

import httpx
import pytest
from gateway_harness import (  # noqa: F401  those in lower case are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
)

from service.gateway.access.headers import ALWAYS, DOCS, NOTHING

LOADED = re.compile(r"<(link|script)[^>]*\b(?:href|src)=\"(https://[^/\"]+)[^>]*>")


def safe(answer: httpx.Response) -> bool:
    wanted = ALWAYS | {"Content-Security-Policy": answer.headers["content-security-policy"]}
    return {name: answer.headers.get_list(name) for name in wanted} == {name: [value] for name, value in wanted.items()}


def test_answers_of_every_kind_have_them(gateway: RunningGateway, worker: TinyWorker) -> None:
    gateway.gateway.figures = None  # type: ignore[assignment]  # a bug
    answers = [
        gateway.http.get("/healthz"),
        gateway.http.head("/v1/models"),
        gateway.http.get("/metrics"),
        gateway.http.get("/nowhere"),
        gateway.http.put("/generate"),
        gateway.http.post("/generate", json={}),
        gateway.http.post("/generate", json={"prompt": "x" * 5000}),
        gateway.http.get("/v1/models", headers={"Host": "evil.example"}),
        gateway.http.get("/v1/models", headers={"Origin": "http://evil.example"}),
        gateway.ask(),
        gateway.http.post("/generate", json={"prompt": "a"}, headers={"Accept": "image/png"}),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 500, 404, 405, 422, 413, 421, 403, 200, 200]
    assert [answer.url for answer in answers if not safe(answer)] == []
    assert {answer.headers["content-security-policy"] for answer in answers} == {NOTHING}


def test_a_stream_has_them_and_a_picture_may_be_kept(gateway: RunningGateway, worker: TinyWorker) -> None:
    job_id = gateway.ask().json()["id"]
    with gateway.http.stream("GET", f"/jobs/{job_id}/events") as events:
        assert safe(events)
    picture = gateway.http.get(f"/jobs/{job_id}/images/0")
    assert picture.headers["cache-control"].startswith("private, immutable")
    assert picture.headers["x-content-type-options"] == "nosniff"
    assert gateway.http.get(f"/jobs/{job_id}").headers["cache-control"] == "no-store"


@pytest.fixture
def raw(gateway: RunningGateway) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        yield connection


def test_what_the_connection_refuses_has_them(raw: socket.socket) -> None:
    raw.sendall(b"this is no HTTP\r\n\r\n")
    head = raw.makefile("rb").read().decode().partition("\r\n\r\n")[0]
    status, *lines = head.split("\r\n")
    assert status.split()[1] == "400"
    assert set(lines) >= {f"{name.lower()}: {value}" for name, value in ALWAYS.items()}


def test_the_docs_load_nothing_from_elsewhere(gateway: RunningGateway) -> None:
    answer = gateway.http.get("/docs")
    assert safe(answer)
    policy = answer.headers["content-security-policy"]
    assert policy == DOCS
    sources = {kind: values.split() for kind, _, values in (rule.strip().partition(" ") for rule in policy.split(";"))}
    assert not LOADED.findall(answer.text)
    named = {source for values in sources.values() for source in values}
    assert named == {"'none'", "'self'", "data:", "blob:"}
    assert sources["script-src"] == ["'self'"], "a script that somebody puts into the page must not run"
    assert sources["default-src"] == sources["frame-ancestors"] == ["'none'"]
    assert sources["connect-src"] == ["'self'"]  # the document, and what is tried
