"""One client's connection: uvicorn's, with bounds on what a slow, silent or greedy client may cost."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.gateway.access.headers import ALWAYS

IDLE_S = 75
"""A connection without a request is kept this long: longer than proxies keep theirs (60 s), so that it is they who
close it. A request that meets our closing is lost."""
LINGER_S = 1.0
SAFE = b"".join(f"{name.lower()}: {value}\r\n".encode() for name, value in ALWAYS.items())
OF_UPGRADES = (b"upgrade", b"http2-settings")


@dataclass
class Seldom:
    """True at most once a second: for what may happen thousands of times and is worth a line."""

    last_s: float = float("-inf")

    def __call__(self) -> bool:
        now_s = time.monotonic()
        if now_s - self.last_s < 1:
            return False
        self.last_s = now_s
        return True


@dataclass
class Limits:
    """What the connections of one server share. ``waiting``: those whose client is to move, the longest first."""

    connections: int
    head_bytes: int
    request_s: float
    stalled_s: float = 60.0
    """A client that takes nothing of its answer for this long is gone."""
    waiting: dict["Connection", None] = field(default_factory=dict)
    worth_a_line: Seldom = field(default_factory=Seldom)


class Config(uvicorn.Config):
    """uvicorn's, for our connections with our limits."""

    def __init__(self, app: Any, limits: Limits, **options: Any) -> None:
        super().__init__(app, http=Connection, ws="none", log_config=None, access_log=False, **options)
        self.limits = limits


class Connection(HttpToolsProtocol):
    """Ends when the head grows too large, or when the client is silent for too long.

    One connection too many ends the one whose client has been to move for longest: with half requests nobody can keep
    others out. An offer to upgrade is declined; uvicorn would lose the body.
    """

    config: Config

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.limits = self.config.limits
        self.timer: asyncio.TimerHandle | None = None
        self.stalled: asyncio.TimerHandle | None = None
        self.receiving = self.in_head = self.clocked = self.too_large = self.refused = False
        self.head_bytes = 0

    # Who may stay

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.end_in(IDLE_S)
        if len(self.connections) > self.limits.connections:
            self.make_room()
        self.limits.waiting[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.limits.waiting.pop(self, None)
        self.go_on()
        self.resume_writing()

    def make_room(self) -> None:
        if self.limits.worth_a_line():
            self.logger.warning("%d connections are open: those with silent clients go", self.limits.connections)
        oldest = next(iter(self.limits.waiting), None)
        if oldest is None:
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests are being answered", b"retry-after: 1\r\n")
        else:
            del self.limits.waiting[oldest]
            oldest.transport.close()

    # How long it may take

    def end_in(self, seconds: float) -> None:
        self.go_on()
        self.timer = self.loop.call_later(seconds, self.on_silence)

    def go_on(self) -> None:
        if self.timer:
            self.timer.cancel()
            self.timer = None

    def on_silence(self) -> None:
        if self.receiving and not self.refused:
            limit = f"a request must be sent within {self.limits.request_s:g} s"
            self.refuse(HTTPStatus.REQUEST_TIMEOUT, limit)
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.stalled = self.loop.call_later(self.limits.stalled_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.stalled:
            self.stalled.cancel()
            self.stalled = None

    # What comes

    def data_received(self, data: bytes) -> None:
        if self.refused:
            return
        self.head_bytes += len(data)
        try:
            self.feed(data)
        except httptools.HttpParserError:
            self.refuse(HTTPStatus.BAD_REQUEST, "this is no HTTP request")
        if self.too_large or (self.in_head and self.head_bytes > self.limits.head_bytes):
            limit = f"the head of a request may have at most {self.limits.head_bytes} bytes"
            self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, limit)
        elif self.receiving and not self.clocked:
            self.clocked = True
            self.end_in(self.limits.request_s)

    def feed(self, data: bytes) -> None:
        """Parse ``data``; an offer to upgrade is parsed once more without the offer, and then with its body."""
        rest = memoryview(data)
        while rest:
            try:
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if self.parser.get_method() == b"CONNECT":
                    return
                rest = rest[upgrade.args[0] :]
                head = self.head_without_upgrade()
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
                self.parser.feed_data(head)

    def head_without_upgrade(self) -> bytes:
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                kept = [token for token in value.split(b",") if token.strip().lower() not in OF_UPGRADES]
                lines.append(b"connection: " + b",".join(kept))
            elif name not in OF_UPGRADES:
                lines.append(name + b": " + value)
        return b"\r\n".join([*lines, b"", b""])

    def offers_upgrade(self) -> bool:
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self.receiving = self.in_head = True
        self.clocked = False

    def on_headers_complete(self) -> None:
        if self.offers_upgrade():
            return
        self.in_head = False
        if self.head_bytes > self.limits.head_bytes:  # that many came, perhaps with a part of the body
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            self.too_large = size > self.limits.head_bytes
        if not self.too_large:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self.too_large:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.too_large or self.offers_upgrade():
            return
        super().on_message_complete()
        self.receiving, self.head_bytes = False, 0
        self._unset_keepalive_if_required()
        if self.cycle.response_complete:  # it was answered before it was whole
            self.end_in(IDLE_S)
        else:
            self.go_on()
            self.limits.waiting.pop(self, None)

    # What goes

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.pipeline:
            self.limits.waiting[self] = None

    def refuse(self, status: HTTPStatus, detail: str, header: bytes = b"") -> None:
        """Say so, unless an earlier request is still to be answered, and close: not before the client had time to hear
        it, for closing with something unread in the buffer takes the answer back."""
        self.refused = True
        cycle = self.cycle
        answering = cycle is not None and not cycle.response_complete
        if not (answering and (self.in_head or self.pipeline or cycle.response_started)):
            told = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
            body = json.dumps(told).encode()
            fixed = b"content-type: application/problem+json\r\nconnection: close\r\n" + SAFE
            length = b"content-length: %d\r\n\r\n" % len(body)
            self.transport.write(STATUS_LINE[status] + fixed + header + length + body)
        if answering:
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.write_eof()
        self.end_in(LINGER_S)

    def send_400_response(self, msg: str) -> None:
        self.refuse(HTTPStatus.BAD_REQUEST, msg)
