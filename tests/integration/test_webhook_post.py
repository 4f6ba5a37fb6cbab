"""One attempt to deliver, to the address that was checked; and what a killed gateway has left."""

import contextlib
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from fleet import Fleet
from gateway_harness import Background, until
from queue_support import make_job, make_result
from receiver import Receiver

from service.gateway.webhooks.post import Outcome, Post
from service.gateway.webhooks.targets import Targets
from service.messages import JobView, Status
from service.queue.webhooks import Delivery
from service.settings import Settings
from service.sockets import free_port

SECRET = "whsec_" + "c2VjcmV0" * 4
NAME = "hooks.test"
"""No name server knows it."""


class NameServer:
    """Says that NAME is at these addresses, one set after the other; the last for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers, self.asked = list(answers), 0

    async def __call__(self, host: str) -> Sequence[str]:
        assert host == NAME
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def settings_of(**changes: object) -> Settings:
    told = {"webhook_secret": SECRET, "webhook_http": True, "webhook_hosts": NAME, "webhook_timeout_s": 5.0}
    return Settings.model_validate(told | changes)


def post(names: NameServer, **changes: object) -> Post:
    settings = settings_of(**changes)
    return Post(settings, Targets(settings, names))


def deliver(posting: Post, url: str) -> tuple[Outcome, str]:
    [answer] = deliver_all(posting, [url])
    return answer


def deliver_all(posting: Post, urls: Sequence[str]) -> list[tuple[Outcome, str]]:
    """What came of each, one after the other."""
    view = JobView(
        job=make_job(),
        status=Status.SUCCEEDED,
        epoch=1,
        attempts=1,
        evaluation=10,
        evaluations=10,
        committed=1,
        started_ms=1,
        finished_ms=2,
        failure=None,
        result=make_result(),
    )

    async def attempts() -> list[tuple[Outcome, str]]:
        try:
            return [await posting.deliver(Delivery("some-job", 1, 0.0, "", NAME, url, view)) for url in urls]
        finally:
            await posting.close()

    answers: list[tuple[Outcome, str]] = Background().call(attempts())
    return answers


def test_the_name_is_asked_for_once_and_the_connection_goes_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port()}")
    names = NameServer(["127.0.0.1"], ["203.0.113.1"])
    with Receiver() as receiver:
        assert deliver(post(names), f"http://{NAME}:{receiver.port}/a?b=c") == (Outcome.DELIVERED, "204")
    [got] = receiver.got
    assert (got.path, got.headers["Host"], names.asked) == ("/a?b=c", f"{NAME}:{receiver.port}", 1)


def test_the_next_address_is_tried_when_nobody_answers_at_the_first() -> None:
    names = NameServer(["127.0.0.2", "127.0.0.1"])
    with Receiver() as receiver:
        assert deliver(post(names), f"http://{NAME}:{receiver.port}/")[0] is Outcome.DELIVERED


@contextlib.contextmanager
def abyss(port: int) -> Iterator[str]:
    """An address at which packets to ``port`` go nowhere: its queue is full, and nobody accepts."""
    with socket.create_server(("127.0.0.2", port), backlog=0) as full, contextlib.ExitStack() as waiting:
        for _ in range(4):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        yield "127.0.0.2"


def test_there_is_time_for_the_next_address_where_packets_to_the_first_go_nowhere() -> None:
    """As with a name that has an IPv6 address, and a network that drops IPv6."""
    with Receiver() as receiver, abyss(receiver.port) as nowhere:
        names = NameServer([nowhere, "127.0.0.1"])
        assert deliver(post(names, webhook_timeout_s=3.0), f"http://{NAME}:{receiver.port}/")[0] is Outcome.DELIVERED


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    """It would lead where nobody has looked."""
    with Receiver() as inside, Receiver(lambda _: (status, {"Location": inside.url})) as receiver:
        names = NameServer(["127.0.0.1"])
        assert deliver(post(names), f"http://{NAME}:{receiver.port}/") == (Outcome.FAILED, str(status))
    assert (len(receiver.got), inside.got) == (1, [])


def test_links_begin_as_the_operator_says() -> None:
    def told(**changes: object) -> str:
        receiver.got.clear()
        deliver(post(NameServer(["127.0.0.1"]), **changes), f"http://{NAME}:{receiver.port}/")
        return str(json.loads(receiver.got[0].body)["data"]["images"][0]["url"])

    with Receiver() as receiver:
        assert told(root_path="/vqd").startswith("/vqd/jobs/job-")
        assert told(public_url="https://a.example.com:8443", root_path="/vqd").startswith(
            "https://a.example.com:8443/vqd/jobs/job-"
        )


def test_a_name_that_has_moved_to_loopback_gets_nothing() -> None:
    """It had a public address when the request came."""
    names = NameServer(["127.0.0.1"])
    with Receiver() as receiver:
        outcome, why = deliver(post(names, webhook_hosts=""), f"http://{NAME}:{receiver.port}/")
    assert (outcome, why, receiver.got) == (Outcome.REFUSED, "its host has an address that is not public", [])


def test_one_connection_is_not_used_for_two_names(
    tls_receiver: Receiver, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are at one address, and the certificate that was looked at is only one's."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def anywhere(_: str) -> Sequence[str]:
        return ["127.0.0.1"]

    settings = settings_of(webhook_hosts="*.test")
    posting = Post(settings, Targets(settings, anywhere))
    urls = [f"https://{host}:{tls_receiver.port}/" for host in (NAME, "other.test")]
    assert [outcome for outcome, _ in deliver_all(posting, urls)] == [Outcome.DELIVERED, Outcome.FAILED]
    assert len(tls_receiver.got) == 1


def test_a_name_server_that_is_away_is_worth_another_try() -> None:
    async def away(_: str) -> Sequence[str]:
        raise OSError("marked-zq9w")

    settings = settings_of()
    outcome, why = deliver(Post(settings, Targets(settings, away)), f"http://{NAME}/")
    assert (outcome, why) == (Outcome.FAILED, "its host has no address that could be found")


def test_an_answer_in_drops_is_not_waited_for() -> None:
    """Each drop comes in time, and there is always another one."""
    stop = threading.Event()

    def drip(server: socket.socket) -> None:
        client, _ = server.accept()
        with client, contextlib.suppress(OSError):
            client.sendall(b"HTTP/1.1 200 OK\r\n")
            while not stop.wait(0.1):
                client.sendall(b"X-Drop: 1\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        dripping = threading.Thread(target=drip, args=(server,), daemon=True)
        dripping.start()
        began = time.monotonic()
        names = NameServer(["127.0.0.1"])
        answer = deliver(post(names, webhook_timeout_s=1.0), f"http://{NAME}:{server.getsockname()[1]}/")
        took_s = time.monotonic() - began
        stop.set()
        dripping.join(10)
    assert answer == (Outcome.FAILED, "TimeoutError")
    assert 1 <= took_s < 8


def test_nobody_there_is_worth_another_try() -> None:
    outcome, why = deliver(post(NameServer(["127.0.0.1"])), f"http://{NAME}:{free_port()}/zq9w")
    assert (outcome, why) == (Outcome.FAILED, "ConnectError")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of NAME, signed by itself, with its key."""
    folder = tmp_path_factory.mktemp("tls")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-days", "2", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
    command += ["-keyout", str(folder / "key"), "-out", str(folder / "certificate")]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    (folder / "both").write_text((folder / "key").read_text() + (folder / "certificate").read_text())
    return folder / "both"


@pytest.fixture
def tls_receiver(certificate: Path) -> Iterator[Receiver]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Receiver(tls=context) as receiver:
        yield receiver


def test_the_certificate_must_be_the_names(
    tls_receiver: Receiver, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"https://{NAME}:{tls_receiver.port}/"
    assert deliver(post(NameServer(["127.0.0.1"])), url) == (Outcome.FAILED, "ConnectError"), "nobody knows it"
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert deliver(post(NameServer(["127.0.0.1"])), url)[0] is Outcome.DELIVERED
    with_dot = url.replace(NAME, f"{NAME}.")
    assert deliver(post(NameServer(["127.0.0.1"])), with_dot)[0] is Outcome.DELIVERED, "only name servers want the dot"

    async def anywhere(_: str) -> Sequence[str]:
        return ["127.0.0.1"]

    settings = settings_of(webhook_hosts="localhost")
    assert (
        deliver(Post(settings, Targets(settings, anywhere)), f"https://localhost:{tls_receiver.port}/")[0]
        is Outcome.FAILED
    )
    assert len(tls_receiver.got) == 2


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Iterator[Fleet]:
    webhooks = {"webhook_secret": SECRET, "webhook_hosts": "localhost", "webhook_http": True, "webhook_timeout_s": 1}
    started = Fleet(redis_url, tmp_path, log_level="DEBUG", **webhooks)
    started.start_worker()
    yield started
    started.close()


def test_what_a_killed_gateway_was_about_to_deliver_another_one_delivers(fleet: Fleet) -> None:
    first, silent = free_port(), threading.Event()
    with Receiver(lambda number: (200, {}) if number or silent.wait(20) else (500, {})) as receiver:
        killed = fleet.start_gateway(first)
        with httpx.Client(base_url=f"http://127.0.0.1:{first}", timeout=20) as client:
            until(lambda: probe(client))
            asked = {"prompt": "red circle", "webhook_url": receiver.url}
            job = client.post("/generate", json=asked, headers={"Prefer": "respond-async"}).json()["id"]
            until(lambda: receiver.got, limit_s=30)
        killed.kill()
        killed.wait()
        fleet.start_gateway(free_port())
        until(lambda: len(receiver.got) > 1, limit_s=60)
        until(lambda: "webhook delivered" in (fleet.folder / "gateway.log").read_text())
        silent.set()
    assert {got.id for got in receiver.got} == {f"msg_{job}"}
    logs = "".join(path.read_text() for path in fleet.folder.glob("*.log"))
    assert "webhook delivered" in logs
    assert "zq9w" not in logs, "what is in the URL may be a secret"


def probe(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
