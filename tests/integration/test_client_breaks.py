"""``import vqd``, in both its forms: a connection that breaks off in the middle, by a server that does just that."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

import pytest
from client_support import client_of, either_kind  # noqa: F401  the last is a fixture

import vqd

IMAGE = {"index": 0, "seed": 7, "tokens_sha256": "ab"}
JOB = {"id": "1", "status": "queued", "images": [IMAGE], "parameters": {"format": "png"}}
GARBAGE = {"Content-Encoding": "gzip"}
Answered: TypeAlias = tuple[int, dict[str, str], bytes]
FULL = {"type": "urn:vqd:problem:unavailable", "detail": "too many listen"}


def event(evaluation: int, status: str) -> bytes:
    told = {"evaluation": evaluation, "evaluations": 2, "committed": 0.5, "status": status}
    return f"id: {evaluation}-0\nevent: progress\ndata: {json.dumps(told)}\n\n".encode()


class Odd(BaseHTTPRequestHandler):
    """Answers one request after the other with what the test says."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.asked.append(f"{self.command} {self.path}")  # type: ignore[attr-defined]
        status, headers, data = self.server.answers.pop(0)  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_DELETE = do_GET

    def log_message(self, *_: Any) -> None:
        pass


class Breaking(BaseHTTPRequestHandler):
    """Its first stream breaks off after an event, its second is refused, its third goes on and is left open."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if not self.path.endswith("/events"):
            data = b"file" if "images" in self.path else json.dumps(JOB | {"status": "succeeded"}).encode()
            return self.answer(200, data)
        self.server.after.append(self.headers["Last-Event-ID"])  # type: ignore[attr-defined]
        match len(self.server.after):  # type: ignore[attr-defined]
            case 1:
                self.begin(event(1, "running"))
            case 2:
                self.answer(503, json.dumps(FULL).encode())
            case _:
                self.begin(event(2, "succeeded"))
                self.server.left = self.server.done.wait(20)  # type: ignore[attr-defined]
        return None

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(202, json.dumps(JOB).encode())

    def answer(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def begin(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], **state: Any) -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        vars(server).update(state)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with serving(Breaking, after=[], done=threading.Event()) as server:
        yield server


def test_a_stream_goes_on_behind_the_last_event_that_came(kind: str, server: ThreadingHTTPServer) -> None:
    with client_of(kind, f"http://127.0.0.1:{server.server_port}") as client:
        first, last = client.stream("a red circle")
    assert not hasattr(server, "left"), "who has the last event does not wait for the end of the stream"
    server.done.set()  # type: ignore[attr-defined]
    assert (first.evaluation, last.evaluation, last.status) == (1, 2, vqd.Status.SUCCEEDED)
    assert [image.bytes for image in last.pictures.images] == [b"file"]
    assert server.after == ["", "1-0", "1-0"]  # type: ignore[attr-defined]


def told(answer: Any) -> Answered:
    return 200, {}, json.dumps(answer).encode()


def test_what_a_proxy_puts_in_the_way_ends_no_wait(kind: str) -> None:
    """It is asked again, and the job is not cancelled."""
    events = {"Content-Type": "text/event-stream"}
    answers = [
        told(JOB),
        (429, {}, b"slow down"),
        (200, events | GARBAGE, b"no gzip"),
        (200, events, event(2, "succeeded")),
        (200, GARBAGE, b"no gzip"),
        told(JOB | {"status": "succeeded"}),
        (200, {}, b"file"),
    ]
    with (
        serving(Odd, asked=[], answers=answers) as server,
        client_of(kind, f"http://127.0.0.1:{server.server_port}") as client,
    ):
        assert client.generate("a red circle").images[0].bytes == b"file"
    asked = [f"{path}/events" for path in ["GET /jobs/1"] * 3]
    assert server.asked[1:] == [*asked, *["GET /jobs/1"] * 2, "GET /jobs/1/images/0"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.generate("a red circle"),
        lambda client: client.job("1"),
        lambda client: client.jobs(),
        lambda client: client.models(),
    ],
    ids=["generate", "job", "jobs", "models"],
)
def test_an_answer_that_is_none_of_ours_is_said(kind: str, call: Callable[[Any], Any]) -> None:
    with (
        serving(Odd, asked=[], answers=[told({"message": "welcome"})]) as server,
        client_of(kind, f"http://127.0.0.1:{server.server_port}") as client,
        pytest.raises(vqd.VqdError, match=r"answered 200: .*welcome"),
    ):
        call(client)


def test_a_list_ends_where_nothing_can_be_read(kind: str) -> None:
    """In an upgrade the service leaves out what another version wrote, be it a whole page."""
    pages = [told({"data": data, "has_more": True}) for data in ([JOB], [])]
    with (
        serving(Odd, asked=[], answers=pages) as server,
        client_of(kind, f"http://127.0.0.1:{server.server_port}") as client,
    ):
        assert [job.id for job in client.jobs(limit=250)] == ["1"]
