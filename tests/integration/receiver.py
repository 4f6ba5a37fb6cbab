"""A receiver of webhooks: a real HTTP server that answers as a test says, and keeps what it got by any method."""

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook

Answer = tuple[int, dict[str, str]]


@dataclass
class Got:
    path: str
    headers: Message
    body: bytes

    @property
    def id(self) -> str:
        return str(self.headers["webhook-id"])

    def verified(self, secret: str) -> dict[str, Any]:
        """What it says, if it was signed with ``secret``. Raises WebhookVerificationError."""
        answer: dict[str, Any] = Webhook(secret).verify(self.body, dict(self.headers.items()))
        return answer


@dataclass
class Receiver:
    """``answer``: of the attempt with that number, from 0 on. Listens on ``host``."""

    answer: Callable[[int], Answer] = lambda _: (204, {})
    host: str = "127.0.0.1"
    tls: ssl.SSLContext | None = None
    got: list[Got] = field(default_factory=list)

    def __enter__(self) -> "Receiver":
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # so that a client may keep its connection

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                receiver.got.append(Got(self.path, self.headers, body))
                status, headers = receiver.answer(len(receiver.got) - 1)
                self.send_response(status)
                for name, value in ({"Content-Length": "0"} | headers).items():
                    self.send_header(name, value)
                self.end_headers()

            do_GET = do_PUT = do_POST

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer((self.host, 0), Handler)
        self.server.daemon_threads = True
        if self.tls:
            self.server.socket = self.tls.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}/hook?token=marked-zq9w"
