"""Who hangs up, at whatever moment, leaves nothing behind: no job, no place, no listener, no task."""

import asyncio
import json
import socket
import struct
import time

import pytest
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)
from picture_files import base64, file_of, noise

from service.gateway.pictures.places import Places

TIMES = 24
LAST_MS = 24
"""After the request: by then its job runs."""
PICTURE = file_of(noise(64, 64))
"""Larger than a text may be: such a request takes a place."""
JSON = "application/json"
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: the connection breaks off, where it is closed in order otherwise."""


def asking(path: str, body: bytes, media_type: str = JSON, accept: str = JSON) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\nAccept: {accept}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def in_json(path: str, accept: str = JSON, **fields: object) -> bytes:
    return asking(path, json.dumps({"prompt": "a red circle", **fields}).encode(), accept=accept)


def in_a_form(path: str, **fields: str) -> bytes:
    parts = [
        *(f'name="{name}"\r\n\r\n{value}'.encode() for name, value in {"prompt": "a red circle", **fields}.items()),
        b'name="image"; filename="a.png"\r\n\r\n' + PICTURE,
    ]
    body = b"".join(b"--end\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts)
    return asking(path, body + b"--end--\r\n", "multipart/form-data; boundary=end")


REQUESTS = {
    "json": in_json("/generate"),
    "bytes": in_json("/generate", accept="image/png"),
    "upload": in_json("/generate", image=base64(PICTURE), n=2),
    "form": in_a_form("/generate"),
    "openai": in_json("/v1/images/generations"),
    "openai stream": in_json("/v1/images/generations", stream=True, partial_images=2),
    "openai edit": in_a_form("/v1/images/edits"),
    "openai edit stream": in_a_form("/v1/images/edits", stream="true"),
}


def tasks(gateway: RunningGateway) -> set[str]:
    async def look() -> set[str]:
        return {task.get_coro().__qualname__ for task in asyncio.all_tasks()}

    return asyncio.run_coroutine_threadsafe(look(), gateway.loop).result(5)


def statuses(gateway: RunningGateway) -> list[str]:
    return [job["status"] for job in gateway.http.get("/jobs", params={"limit": 100}).json()["data"]]


@pytest.mark.parametrize("held", [True, False], ids=["held", "made"])
@pytest.mark.parametrize("sent", REQUESTS.values(), ids=list(REQUESTS))
def test_who_hangs_up_leaves_nothing(gateway: RunningGateway, worker: TinyWorker, sent: bytes, held: bool) -> None:
    gateway.gateway.places = Places(count=1)
    if held:
        worker.hold.set()
    usual = tasks(gateway)
    for number in range(TIMES):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as client:
            client.sendall(sent if number % 5 else sent[: -number - 1])
            time.sleep(number * LAST_MS / TIMES / 1000)
            if number % 2:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    until(lambda: set(statuses(gateway)) <= {"cancelled", "succeeded"} and len(worker.ended) == len(worker.taken))
    assert len(statuses(gateway)) > TIMES / 3, "most had come as far as that"
    until(lambda: tasks(gateway) == usual)
    assert gateway.gateway.feeds.listeners == 0
    assert not gateway.gateway.places.semaphore.locked()
