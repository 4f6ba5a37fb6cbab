"""The containers' health check, against real sockets."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from service.sockets import free_port

ROOT = Path(__file__).parents[2]


class Answers(BaseHTTPRequestHandler):
    """The status is the path's number; /0 is no HTTP at all."""

    def do_GET(self) -> None:
        status = int(self.path.strip("/"))
        if not status:
            self.wfile.write(b"SSH-2.0-nonsense\r\n\r\n")
            return
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"no live worker")

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def probe(url: str, **environment: str) -> tuple[int, str]:
    command = [sys.executable, "-S", "-m", "service.local.probe", url]  # -S: no site-packages, as in Triton's image
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stderr


def test_200_is_health(url: str) -> None:
    assert probe(f"{url}/200") == (0, "")


def test_the_port_may_be_a_variable(url: str) -> None:
    host, _, port = url.rpartition(":")
    assert probe(f"{host}:${{VQD_PORT}}/200", VQD_PORT=port) == (0, "")


def test_a_proxy_of_the_environment_is_not_asked(url: str) -> None:
    assert probe(f"{url}/200", http_proxy=f"http://127.0.0.1:{free_port()}") == (0, "")


@pytest.mark.parametrize(("path", "reason"), [("/503", "503 no live worker"), ("/204", "204"), ("/0", "nonsense")])
def test_anything_else_is_not_and_says_why(url: str, path: str, reason: str) -> None:
    status, message = probe(url + path)
    assert status == 1
    assert message.startswith(f"{url}{path}: ")
    assert reason in message


def test_a_closed_port_is_not_health() -> None:
    closed = f"http://127.0.0.1:{free_port()}/healthz"
    status, message = probe(closed)
    assert status == 1
    assert message.startswith(f"{closed}: ")
    assert "refused" in message
