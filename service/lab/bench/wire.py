"""Clients as cheap as can be, so that what is measured is the gateway: bytes over a connection, on one event loop."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
EVENT = re.compile(rb"^id: (\d+)-\d+$", re.MULTILINE)
Answer = tuple[int, bytes]
"""Status and body."""


def request(method: str, path: str, fields: object = None, *headers: str) -> bytes:
    """One request as it goes over the wire; ``fields`` become its JSON body."""
    body = b"" if fields is None else json.dumps(fields).encode()
    head = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    head += [] if fields is None else ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "", ""]).encode() + body


class Wire(asyncio.Protocol):
    """A connection that is kept; one request at a time."""

    transport: asyncio.Transport
    answer: asyncio.Future[Answer]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.received = transport, b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if end and len(body) >= (int(length[1]) if length else 0):
            self.received = b""
            self.answer.set_result((int(head[9:12]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        answer = getattr(self, "answer", None)
        if answer and not answer.done():
            answer.set_exception(ConnectionError(f"the gateway closed the connection: {exc or 'no reason given'}"))

    async def ask(self, sent: bytes) -> Answer:
        """Raises ConnectionError when the connection ends before the answer."""
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(sent)
        return await self.answer


class Listener(Wire):
    """A connection that follows a job; ``heard``: when each event came, by its evaluation, ``perf_counter``."""

    def __init__(self) -> None:
        self.heard: dict[int, float] = {}

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        whole, end, self.received = (self.received + data).rpartition(b"\n\n")
        for event in EVENT.finditer(whole + end):
            self.heard[int(event[1])] = now


T = TypeVar("T", bound=Wire)


@contextlib.asynccontextmanager
async def connected(port: int, count: int, kind: type[T]) -> AsyncIterator[list[T]]:
    """So many clients of ``kind``; come one after another, for a crowd at once would only measure the backlog."""
    loop, clients = asyncio.get_running_loop(), list[T]()
    try:
        for _ in range(count):
            clients.append((await loop.create_connection(kind, "127.0.0.1", port))[1])
        yield clients
    finally:
        for client in clients:
            client.transport.abort()
        await asyncio.sleep(0)  # a transport is closed in the loop's next turn


async def ask_in_turn(wires: Sequence[Wire], requests: Sequence[bytes]) -> list[Answer]:
    """Each client sends the next request when it has its answer; answers in the order of the requests."""
    answers: list[Answer] = [(0, b"")] * len(requests)
    waiting = iter(enumerate(requests))

    async def client(wire: Wire) -> None:
        for index, sent in waiting:
            answers[index] = await wire.ask(sent)

    await asyncio.gather(*map(client, wires))
    return answers
