"""``import vqd``, in both its forms: a connection that breaks off in the middle, by a server that does just that."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from client_support import client_of, either_kind  # noqa: F401  the last is a fixture

import vqd

IMAGE = {"index": 0, "seed": 7, "tokens_sha256": "ab"}
JOB = {"id": "1", "status": "queued", "images": [IMAGE], "parameters": {"format": "png"}}
FULL = {"type": "urn:vqd:problem:unavailable", "detail": "too many listen"}


def event(evaluation: int, status: str) -> bytes:
    told = {"evaluation": evaluation, "evaluations": 2, "committed": 0.5, "status": status}
    return f"id: {evaluation}-0\nevent: progress\ndata: {json.dumps(told)}\n\n".encode()


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


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Breaking) as server:
        server.after, server.done = [], threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_stream_goes_on_behind_the_last_event_that_came(kind: str, server: ThreadingHTTPServer) -> None:
    with client_of(kind, f"http://127.0.0.1:{server.server_port}") as client:
        first, last = client.stream("a red circle")
    assert not hasattr(server, "left"), "who has the last event does not wait for the end of the stream"
    server.done.set()  # type: ignore[attr-defined]
    assert (first.evaluation, last.evaluation, last.status) == (1, 2, vqd.Status.SUCCEEDED)
    assert [image.bytes for image in last.pictures.images] == [b"file"]
    assert server.after == ["", "1-0", "1-0"]  # type: ignore[attr-defined]
