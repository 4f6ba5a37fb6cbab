"""One attempt to deliver, to the address that was checked; and what a killed gateway has left."""

import ssl
import subprocess
import threading
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
    delivery = Delivery("some-job", attempt=1, age_s=0, owner="", url=url, view=view)

    async def attempt() -> tuple[Outcome, str]:
        try:
            return await posting.deliver(delivery)
        finally:
            await posting.close()

    answer: tuple[Outcome, str] = Background().call(attempt())
    return answer


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


def test_a_name_that_has_moved_to_loopback_gets_nothing() -> None:
    """It had a public address when the request came."""
    names = NameServer(["127.0.0.1"])
    with Receiver() as receiver:
        outcome, why = deliver(post(names, webhook_hosts=""), f"http://{NAME}:{receiver.port}/")
    assert (outcome, why, receiver.got) == (Outcome.REFUSED, "its host has an address that is not public", [])


def test_nobody_there_is_worth_another_try() -> None:
    outcome, why = deliver(post(NameServer(["127.0.0.1"])), f"http://{NAME}:{free_port()}/9c41")
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

    async def anywhere(_: str) -> Sequence[str]:
        return ["127.0.0.1"]

    settings = settings_of(webhook_hosts="localhost")
    assert (
        deliver(Post(settings, Targets(settings, anywhere)), f"https://localhost:{tls_receiver.port}/")[0]
        is Outcome.FAILED
    )
    assert len(tls_receiver.got) == 1


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
    assert "9c41" not in logs, "what is in the URL may be a secret"


def probe(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
