"""What a web page can do to a gateway, as a browser would send it; and whom its guards must not keep out."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
)

import vqd
from service.errors import SetupError
from service.gateway.access.hosts import Names, may_be_key_free, name_in
from service.gateway.access.origins import check_origins, is_same
from service.settings import Settings

EVIL = "http://rebind.evil.example"
PAGE = "https://app.example.com"
PROMPT = {"prompt": "a red circle"}
Start = Callable[..., RunningGateway]


@pytest.fixture
def start(settings: Settings) -> Iterator[Start]:
    """Starts a gateway with other settings; it listens on loopback, whatever ``host`` says."""
    started = []

    def start_gateway(**changed: Any) -> RunningGateway:
        started.append(RunningGateway(settings.model_copy(update=changed)))
        return started[-1]

    yield start_gateway
    for running in started:
        running.close()


def from_page(origin: str, **headers: str) -> dict[str, str]:
    return {"Origin": origin, "Sec-Fetch-Mode": "cors", **headers}


def preflight(gateway: RunningGateway, origin: str, method: str, path: str = "/generate") -> httpx.Response:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "content-type"}
    return gateway.http.options(path, headers=from_page(origin, **asked))


# The attacks of a web page on a service of this machine without keys


@pytest.mark.parametrize("path", ["/generate", "/jobs/a", "/metrics", "/v1/models", "/docs", "/healthz", "/readyz"])
def test_a_name_rebound_to_us_reads_nothing(gateway: RunningGateway, path: str) -> None:
    headers = from_page(f"{EVIL}:{gateway.port}", Host=f"rebind.evil.example:{gateway.port}")
    for method in ("GET", "POST", "DELETE"):
        answer = gateway.http.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["status"]) == (421, 421)
        assert "VQD_ALLOWED_HOSTS" in answer.json()["detail"]
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("origin", [EVIL, "null", "http://localhost:1", "http://127.0.0.1"])
def test_a_page_of_another_origin_can_neither_post_nor_cancel(
    gateway: RunningGateway, worker: TinyWorker, origin: str
) -> None:
    worker.hold.set()
    job_id = gateway.start()
    attempts = [
        gateway.http.post("/generate", json=PROMPT, headers=from_page(origin)),
        gateway.http.post("/generate", content="{}", headers=from_page(origin, **{"Content-Type": "text/plain"})),
        gateway.http.delete(f"/jobs/{job_id}", headers=from_page(origin)),
        gateway.http.get(f"/jobs/{job_id}", headers=from_page(origin)),
        preflight(gateway, origin, "POST"),
        preflight(gateway, origin, "DELETE", f"/jobs/{job_id}"),
    ]
    assert {answer.status_code for answer in attempts} == {403}
    assert "VQD_CORS_ORIGINS" in attempts[0].json()["detail"]
    assert not [name for answer in attempts for name in answer.headers if name.startswith("access-control")]
    assert gateway.job(job_id)["status"] in ("queued", "running")
    assert len(worker.taken) <= 1
    worker.hold.clear()


def test_a_second_origin_is_not_hidden_by_a_good_one(gateway: RunningGateway) -> None:
    headers = [("Origin", gateway.url), ("Origin", EVIL)]
    assert gateway.http.get("/v1/models", headers=headers).status_code == 403


# Whom they must not keep out


def test_our_own_pages_and_programs_are_let_in(gateway: RunningGateway, worker: TinyWorker) -> None:
    own = gateway.http.post("/generate", json=PROMPT, headers=from_page(gateway.url))
    openai = {"Authorization": "Bearer sk-none", "X-Stainless-Lang": "python", "User-Agent": "OpenAI/Python 3.57.0"}
    assert own.status_code == gateway.http.post("/generate", json=PROMPT, headers=openai).status_code == 200
    assert gateway.http.get("/v1/models", headers=openai).status_code == 200
    # What a link on another page does: no Origin, and nothing that a script could read.
    assert gateway.http.get("/docs", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_our_client_is_let_in(gateway: RunningGateway, worker: TinyWorker, tmp_path: Path) -> None:
    with vqd.Client(gateway.url) as client:
        assert client.generate(**PROMPT).images


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.9.8.7:1", "[::1]:80", "localhost."])
def test_this_machines_own_names_are_answered(gateway: RunningGateway, host: str) -> None:
    assert gateway.http.get("/v1/models", headers={"Host": host}).status_code == 200


# Host


def status_of(gateway: RunningGateway, *hosts: str) -> int:
    lines = ["GET /v1/models HTTP/1.1", *(f"Host: {host}" for host in hosts), "Connection: close", "", ""]
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall("\r\n".join(lines).encode())
        return int(connection.makefile("rb").readline().split()[1])


@pytest.mark.parametrize(
    "hosts",
    [
        (),
        ("localhost", "localhost"),
        ("localhost", "evil.example"),
        ("",),
        ("a b",),
        ("localhost:x",),
        ("evil/@localhost",),
    ],
)
def test_no_host_several_or_a_malformed_one_is_400(gateway: RunningGateway, hosts: tuple[str, ...]) -> None:
    assert status_of(gateway, "localhost") == 200
    assert status_of(gateway, *hosts) == 400


def test_listed_names_are_enforced_beyond_loopback_too(start: Start) -> None:
    gateway = start(
        host="0.0.0.0", allow_unauthenticated=True, allowed_hosts="vqd.example.com, *.pods.example, [fd00::1]"
    )

    def status(path: str, host: str) -> int:
        return gateway.http.get(path, headers={"Host": host}).status_code

    for host in ("vqd.example.com:443", "VQD.Example.COM", "a.pods.example", "a.b.pods.example:80", "[fd00::1]:8080"):
        assert status("/v1/models", host) == 200, host
    for host in ("evil.example", "pods.example", "a.vqd.example.com", "localhost", "10.0.0.7", "evilpods.example"):
        assert status("/v1/models", host) == 421, host
    # A kubelet asks by the pod's address.
    assert (status("/healthz", "10.0.0.7:8080"), status("/readyz", "10.0.0.7:8080")) == (200, 503)


def test_a_name_may_be_added_on_loopback(start: Start) -> None:
    gateway = start(allowed_hosts="vqd.example.com")
    for host, status in {"vqd.example.com": 200, "localhost": 200, "evil.example": 421}.items():
        assert gateway.http.get("/v1/models", headers={"Host": host}).status_code == status


def test_without_a_list_any_name_is_answered_beyond_loopback(start: Start) -> None:
    gateway = start(host="0.0.0.0", allow_unauthenticated=True)
    assert gateway.http.get("/v1/models", headers={"Host": "vqd-gateway.vqd.svc:8080"}).status_code == 200
    page = from_page(EVIL, Host="vqd.example.com")
    assert gateway.http.post("/generate", json=PROMPT, headers=page).status_code == 403


@pytest.mark.parametrize(
    ("host", "name"), [("A.b:80", "a.b"), ("[::1]:8", "::1"), ("a:", None), ("a,b", None), ("a:123456", None)]
)
def test_the_name_in_a_host(host: str, name: str | None) -> None:
    assert name_in(host) == name


def test_the_bound_address_is_one_of_the_names() -> None:
    assert Names.of(Settings(host="::1")).include("::1")
    assert not Names.of(Settings(host="127.0.0.1")).include("10.0.0.1")


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://localhost:8080", "localhost:8080", True),
        ("https://vqd.example.com", "vqd.example.com", True),
        ("https://vqd.example.com", "VQD.example.com:443", True),
        ("http://[::1]:8080", "[::1]:8080", True),
        ("https://vqd.example.com", "vqd.example.com:80", False),
        ("http://localhost:8081", "localhost:8080", False),
        ("http://evil.example", "localhost", False),
        ("chrome-extension://localhost", "localhost", False),
        ("null", "null", False),
        ("", "", False),
        ("http://", "", False),
    ],
)
def test_one_origin(origin: str, host: str, same: bool) -> None:
    assert is_same(origin, host) is same


# CORS


@pytest.fixture(name="open_to_page")
def gateway_open_to_a_page(start: Start) -> RunningGateway:
    return start(cors_origins=f"{PAGE}, http://localhost:3000")


def test_a_page_of_a_listed_origin_may_use_it(open_to_page: RunningGateway, settings: Settings) -> None:
    allowed = preflight(open_to_page, PAGE, "POST")
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == PAGE
    assert allowed.headers["access-control-allow-methods"] == "GET, POST, DELETE"
    assert "access-control-allow-credentials" not in allowed.headers
    assert preflight(open_to_page, PAGE, "PUT").status_code == 400
    assert preflight(open_to_page, EVIL, "POST").status_code == 403
    assert preflight(open_to_page, "http://localhost:3000", "DELETE", "/jobs/a").status_code == 200


def test_it_reads_every_header_of_ours(open_to_page: RunningGateway, settings: Settings) -> None:
    worker = TinyWorker(settings)
    worker.warnings = ("something",)
    try:
        headers = from_page(PAGE, Accept="image/png", Prefer="wait=20")
        picture = open_to_page.http.post("/generate", json=PROMPT, headers=headers)
    finally:
        worker.close()
    assert (picture.status_code, picture.headers["access-control-allow-origin"]) == (200, PAGE)
    shown = {name.strip().lower() for name in picture.headers["access-control-expose-headers"].split(",")}
    ours = {name for name in picture.headers if name.startswith(("x-vqd-", "x-request", "preference"))}
    assert len(ours) == 12
    assert ours <= shown
    assert shown >= {"location", "retry-after", "etag", "ratelimit", "ratelimit-policy", "idempotent-replayed"}
    assert picture.headers["cross-origin-resource-policy"] == "cross-origin"


def test_a_stream_is_open_to_it(open_to_page: RunningGateway, settings: Settings) -> None:
    worker = TinyWorker(settings)
    try:
        job_id = open_to_page.start()
        url = f"/jobs/{job_id}/events"
        with open_to_page.http.stream("GET", url, headers=from_page(PAGE, Accept="text/event-stream")) as events:
            assert events.headers["access-control-allow-origin"] == PAGE
            assert "event: succeeded" in list(events.iter_lines())
    finally:
        worker.close()


def test_it_can_read_errors_of_every_kind(open_to_page: RunningGateway) -> None:
    def ask(method: str, path: str, **request: Any) -> httpx.Response:
        return open_to_page.http.request(method, path, **{"headers": from_page(PAGE)} | request)

    del open_to_page.gateway.figures  # a bug
    answers = [
        ask("GET", "/metrics"),
        ask("GET", "/jobs/a"),
        ask("PUT", "/jobs/a"),
        ask("DELETE", "/jobs/a", content=b"x" * 5000),
        ask("POST", "/generate", json={"prompt": 1}),
        ask("POST", "/generate", content="{}", headers=from_page(PAGE, **{"Content-Type": "text/plain"})),
    ]
    assert [answer.status_code for answer in answers] == [500, 404, 405, 413, 422, 415]
    assert {answer.headers.get("access-control-allow-origin") for answer in answers} == {PAGE}
    assert all("x-request-id" in answer.headers for answer in answers)


def test_off_by_default(gateway: RunningGateway) -> None:
    answer = gateway.http.get("/v1/models", headers=from_page(gateway.url))
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert "vary" not in answer.headers


def test_all_pages_there_are_take_keys() -> None:
    for open_to_anybody in (
        Settings(cors_origins="*"),
        Settings(cors_origins="*", host="::", allow_unauthenticated=True),
    ):
        assert may_be_key_free(open_to_anybody)
        with pytest.raises(SetupError, match=r"VQD_CORS_ORIGINS=\*: without API keys"):
            check_origins(open_to_anybody)
    check_origins(Settings(cors_origins="*", host="0.0.0.0"))
    check_origins(Settings(cors_origins="*", key_file=Path("keys")))
    check_origins(Settings(cors_origins=PAGE))
