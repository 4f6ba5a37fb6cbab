"""Parts of `vqd up` that need a real Redis or a Triton that falls silent."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import redis
from test_triton_fake import SHAPES

from service.errors import SetupError
from service.local.redis import APPEND_ONLY, RedisServer
from service.local.silence import Silence
from service.testing.fake_triton import FakeTriton

AOF = APPEND_ONLY[0]


@pytest.fixture
def stopped_redis(tmp_path: Path) -> RedisServer:
    """One that has written something, and can be started again."""
    server = RedisServer(tmp_path / "a b é")
    with server, redis.Redis(port=server.port) as client:
        client.set("key", "value" * 100)
    return server


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def test_a_file_that_ends_in_the_middle_of_a_command_is_read(stopped_redis: RedisServer) -> None:
    cut(stopped_redis.folder / AOF)
    with stopped_redis:
        assert stopped_redis.answers()


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(4))


def spoil_the_middle(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:30] + bytes(20) + content[50:])


def make_newer(path: Path) -> None:
    path.write_bytes(b"REDIS0099" + path.read_bytes())


@pytest.mark.parametrize("damage", [spoil, spoil_the_middle, make_newer])
def test_a_damaged_file_is_named_with_what_is_lost_without_it(
    damage: Callable[[Path], None], stopped_redis: RedisServer
) -> None:
    path = stopped_redis.folder / AOF
    damage(path)
    with pytest.raises(SetupError) as raised:
        stopped_redis.start()
    line = str(raised.value).splitlines()[0]
    assert line.startswith(f"redis ended with status 1: {path} cannot be read. Move it away and start again: lost are")
    path.rename(path.with_suffix(".bad"))
    with stopped_redis:
        assert stopped_redis.answers(), "as it was told"


class Readiness(BaseHTTPRequestHandler):
    """Of a gateway: the status is the number that the server was given."""

    def do_GET(self) -> None:
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def gateway() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Readiness)
    server.status = 503
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def silence(gateway: HTTPServer, triton: str, folder: Path, listens: bool = True, answer_s: float = 30) -> Silence:
    url = f"http://127.0.0.1:{gateway.server_port}"
    return Silence(url, triton, lambda: listens, folder / "log", unready_s=0, answer_s=answer_s)


async def verdict(silence: Silence) -> bool:
    """What it finds when it has asked."""
    give_up_s, asked = time.monotonic() + 60, False
    while time.monotonic() < give_up_s:
        silence.next_look_s = 0
        if silence.found():
            return True
        if asked and silence.question is None:
            return False
        asked = silence.question is not None
        await asyncio.sleep(0.02)
    raise AssertionError("it never asked")


@pytest.mark.anyio
async def test_a_triton_that_answers_is_not_the_reason_why_the_service_is_unready(
    gateway: HTTPServer, tmp_path: Path
) -> None:
    async with FakeTriton(SHAPES) as fake:
        assert not await verdict(silence(gateway, fake.url, tmp_path))


@pytest.mark.anyio
async def test_a_triton_that_hangs_is_found(gateway: HTTPServer, tmp_path: Path) -> None:
    async with FakeTriton(SHAPES) as fake:
        fake.hang()
        assert await verdict(silence(gateway, fake.url, tmp_path, answer_s=2))
        fake.resume()


@pytest.mark.anyio
async def test_a_triton_that_answers_errors_is_found(gateway: HTTPServer, tmp_path: Path) -> None:
    async with FakeTriton(SHAPES) as fake:
        fake.fail_next(model="text_encoder")
        assert await verdict(silence(gateway, fake.url, tmp_path))


@pytest.mark.parametrize(("status", "listens"), [(200, True), (503, False)])
def test_while_it_is_ready_or_triton_loads_nobody_asks(
    status: int, listens: bool, gateway: HTTPServer, tmp_path: Path
) -> None:
    gateway.status = status
    looking = silence(gateway, "127.0.0.1:1", tmp_path, listens)
    for _ in range(3):
        looking.next_look_s = 0
        assert not looking.found()
        assert looking.question is None
