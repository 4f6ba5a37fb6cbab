"""What the costs of a gateway are made of: readings of processes, and clients that count bytes."""

import asyncio
import contextlib
import os
import time

import pytest

from service.errors import Unavailable
from service.lab.bench.costs import Load, Spent, costs, posts, require
from service.lab.bench.stand import Usage, cpu_s
from service.lab.bench.wire import Listener, Wire, ask_in_turn, connected, request

pytestmark = pytest.mark.anyio

BEFORE = Usage({"gateway": 1.0, "redis": 0.5}, {"gateway": 2**20, "redis": 0}, 1000, 0)
AFTER = Usage({"gateway": 3.0, "redis": 0.6}, {"gateway": 2**20 + 400 * 1024, "redis": 0}, 1201, 0)


def test_what_is_spent_is_divided_by_what_was_done() -> None:
    spent = Spent(BEFORE, AFTER, seconds=4.0, count=100)
    assert (spent.rate, spent.cpu_ms("gateway"), spent.cpu_percent("gateway")) == (25, 20, 50)
    assert spent.cpu_ms("redis") == pytest.approx(1)
    assert spent.memory_kib("gateway") == 4
    assert spent.commands == 2, "the reading itself is one that does not count"
    lines = {line.what: line.value for line in costs("Poll", [spent], 16)}
    assert lines["Poll: CPU of the gateway"] == 20
    assert lines["Poll: rate with 16 clients"] == 25


def test_a_smaller_load_is_smaller_in_everything() -> None:
    whole, tiny = Load(), Load().fewer(1000)
    assert (tiny.jobs, tiny.listeners, tiny.portions, tiny.events) == (10, 4, 4, 2)
    assert tiny.idle_s == whole.idle_s / 1000
    assert tiny.jobs // tiny.portions >= 1


def test_an_answer_of_another_kind_is_no_measurement() -> None:
    require([(202, b"")], 202)
    with pytest.raises(Unavailable, match="503 in place of 202: full"):
        require([(202, b""), (503, b"full")], 202)


def test_every_request_asks_for_something_else() -> None:
    sent = posts(3, 0, "Prefer: respond-async")
    assert len({*sent}) == 3
    assert all(b"\r\nPrefer: respond-async\r\n" in one for one in sent)
    assert request("GET", "/jobs/1") == b"GET /jobs/1 HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_processor_time_is_what_was_computed() -> None:
    before, until = cpu_s(os.getpid()), time.thread_time() + 0.05
    while time.thread_time() < until:
        pass
    assert 0.05 <= cpu_s(os.getpid()) - before < 5


async def test_answers_come_in_the_order_of_the_requests_whatever_pieces_they_come_in() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            async for line in reader:
                if line.startswith(b"GET"):
                    body = b"to " + line.split()[1]
                    head = b"Length: %d\r\n\r\n" % len(body)
                    for piece in (b"HTTP/1.1 200 OK\r\nContent-", head, body[:2], body[2:]):
                        writer.write(piece)
                        await asyncio.sleep(0.001)
        ended.release()

    ended = asyncio.Semaphore(0)
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with connected(port, 3, Wire) as wires:
            answers = await ask_in_turn(wires, [request("GET", f"/{number}") for number in range(10)])
        for _ in wires:
            await ended.acquire()
    assert answers == [(200, f"to /{number}".encode()) for number in range(10)]


def test_a_listener_notes_when_each_event_was_whole() -> None:
    listener = Listener()
    listener.received = b""
    stream = (
        b"HTTP/1.1 200 OK\r\n\r\nretry: 1000\n\nid: 1-0\nevent: progress\ndata: {}\n\nid: 12-0\nevent: p\ndata: {}\n\n"
    )
    for place in range(0, len(stream), 7):
        assert 12 not in listener.heard
        listener.data_received(stream[place : place + 7])
    assert sorted(listener.heard) == [1, 12]
    assert listener.heard[1] < listener.heard[12]
