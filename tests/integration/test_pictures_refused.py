"""What the gateway refuses of pictures to begin with, and what they may cost it."""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from fleet import Fleet, serving
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    MODEL,
    TOKENS,
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)
from picture_files import base64, file_of, half_mask, noise, png_header

from service.gateway.app import create_app
from service.gateway.bodies import with_pictures
from service.gateway.document import document, with_served
from service.gateway.pictures.places import Places
from service.gateway.schemas import EDITS
from service.settings import Settings

SMALL, MASK = file_of(noise(64, 64)), file_of(half_mask(64))
IMAGE = base64(SMALL)
HUGE = 20 * 2**20
MEMORY = 350 * 2**20


def errors(response: httpx.Response) -> dict[str, str]:
    """Field → what is wrong, and what is allowed."""
    assert response.status_code == 422, response.text
    return {error["field"]: f"{error['message']} ({error.get('allowed')})" for error in response.json()["errors"]}


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"image": "no base64!"}, "image", "no base64"),
        ({"image": 5}, "image", "PNG, JPEG or WebP"),
        ({"image": base64(b"GIF89a")}, "image", "no picture that can be read (a PNG, JPEG or WebP file, not animated)"),
        ({"image": base64(png_header(30_000, 30_000))}, "image", "more pixels (at most 16777216 pixels)"),
        ({"image": base64(SMALL[:-300])}, "image", "cut off"),
        ({"image": base64(bytes(4 * 2**20 + 1))}, "image", "4194305 bytes (at most 4194304 bytes)"),
        ({"image": IMAGE, "mask": base64(file_of(half_mask(32)))}, "mask", "32x32 pixels (64x64 pixels, as the image"),
        (
            {"image": IMAGE, "mask": base64(file_of(half_mask(64) * 0))},
            "mask",
            "nothing to change (half of some cell of 8x8",
        ),
        ({"image": IMAGE, "mask": base64(b"?")}, "mask", "no picture"),
        ({"image": IMAGE, "strength": 1.5}, "strength", "(a number from 0 to 1)"),
        ({"image": IMAGE, "strength": -0.1}, "strength", "(a number from 0 to 1)"),
        ({"image": IMAGE, "composite": True}, "composite", "needs mask"),
        ({"image": IMAGE, "image_sha256": "0" * 64}, "image_sha256", "another file"),
        ({"image": IMAGE, "image_sha256": "0"}, "image_sha256", "64 digits"),
        ({"strength": 0.5}, "strength", "needs image"),
        ({"mask": base64(MASK)}, "mask", "needs image"),
        ({"image_sha256": "0" * 64}, "image_sha256", "needs image"),
        ({"image": IMAGE, "mask_sha256": "0" * 64}, "mask_sha256", "needs mask"),
        ({"pinned": [0]}, "pinned", f"has 1 codes ({TOKENS} whole numbers from 0 to 255, or -1"),
        ({"pinned": [256] * TOKENS}, "pinned", "out of range"),
        ({"pinned": [-2] * TOKENS}, "pinned", "out of range"),
        ({"pinned": "all"}, "pinned", "a list of whole numbers"),
        ({"image": IMAGE, "strength": 0.5, "guidance_schedule": [1.0] * 4}, "guidance_schedule", "takes 2 evaluations"),
    ],
)
def test_a_wrong_field_is_named(
    gateway: RunningGateway, worker: TinyWorker, fields: dict[str, Any], field: str, says: str
) -> None:
    wrong = errors(gateway.ask(**fields))
    assert list(wrong) == [field]
    assert says in wrong[field]


def test_what_says_nothing_is_no_mistake(gateway: RunningGateway, worker: TinyWorker) -> None:
    assert gateway.ask(image=None, composite=False, strength=None).status_code == 200


def test_every_wrong_field_is_named_at_once(gateway: RunningGateway, worker: TinyWorker) -> None:
    assert list(errors(gateway.ask(image="!", strength=2, n="x"))) == ["n", "image", "strength"]


def test_a_worker_of_an_older_version_gets_no_pictures(gateway: RunningGateway, worker: TinyWorker) -> None:
    gateway.gateway.directory.max_age_s = 0
    fields = gateway.http.get("/v1/models").json()["data"][0]["fields"]
    assert set(EDITS) <= set(fields)
    worker.model = MODEL.model_copy(update={"edits": False})
    worker.turn("ready")
    assert not set(EDITS) & set(gateway.http.get("/v1/models").json()["data"][0]["fields"])
    assert "begins with no pictures" in errors(gateway.ask(image=IMAGE))["image"]
    assert gateway.ask().status_code == 200
    whole = with_served(document(create_app(Settings())), [worker.model])
    assert not set(EDITS) & set(whole["components"]["schemas"]["GenerateRequest"]["properties"])


# Forms


def form(gateway: RunningGateway, **more: Any) -> httpx.Response:
    return gateway.http.post("/generate", **{"data": {"prompt": "a red circle"}, "files": {"image": SMALL}, **more})


def test_a_form_is_taken(gateway: RunningGateway, worker: TinyWorker) -> None:
    data = {"prompt": "7", "label": "", "negative_prompt": "", "n": "2", "truncation_rate": "0.5", "format": "webp"}
    answer = form(gateway, data={**data, "guidance_schedule": "ramp"})
    assert answer.status_code == 200, answer.text
    used = answer.json()["parameters"]
    assert (used["n"], used["format"], used["guidance_schedule"]) == (2, "webp", "ramp")


@pytest.mark.parametrize(
    ("more", "field", "says"),
    [
        ({"data": {"prompt": "a", "n": "two"}}, "n", "whole number"),
        ({"data": {"prompt": "a", "strenght": "1"}}, "strenght", "no such field"),
        ({"data": {"prompt": ["a", "b"]}}, "prompt", "more than once"),
        ({"files": [("image", SMALL), ("image", SMALL)]}, "image", "more than once"),
        ({"files": {"prompt": SMALL}, "data": {}}, "prompt", "text of 1 to"),
        ({"data": {"prompt": "a" * 5000}}, "body", "RFC 7578"),
        ({"data": {f"f{i}": "" for i in range(200)}}, "body", "Too many fields"),
        ({"files": [(f"f{i}", SMALL) for i in range(21)]}, "body", "Too many files"),
        ({"headers": {"Content-Type": "multipart/form-data"}}, "body", "boundary"),
    ],
)
def test_a_wrong_form(gateway: RunningGateway, worker: TinyWorker, more: dict[str, Any], field: str, says: str) -> None:
    wrong = errors(form(gateway, **more))
    assert says in wrong[field], wrong


# Bounds


@pytest.mark.parametrize("chunked", [False, True])
def test_20_megabytes_are_refused_unread(gateway: RunningGateway, worker: TinyWorker, chunked: bool) -> None:
    most = with_pictures(gateway.gateway.settings)
    assert 2 * 4 * 2**20 < most < HUGE
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {HUGE}"
    head = f"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as client:
        client.sendall(head.encode())
        sent, piece = 0, b"10000\r\n" + b" " * 2**16 + b"\r\n"
        client.settimeout(0.01 if chunked else 10)
        while True:
            try:
                answer = client.recv(100)
                break
            except TimeoutError:
                client.settimeout(10)
                client.sendall(piece)
                client.settimeout(0.001)
                sent += 2**16
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert sent <= most + 2**20


def test_text_is_bounded_beside_pictures(gateway: RunningGateway, worker: TinyWorker) -> None:
    ask = {"prompt": "a red circle", "image": IMAGE}
    content = json.dumps(ask).encode()
    limit = len(content) - len(IMAGE)
    headers = {"Content-Type": "application/json"}
    fits = content + b" " * (4096 - limit)
    assert gateway.http.post("/generate", content=fits, headers=headers).status_code == 200
    assert gateway.http.post("/generate", content=fits + b" ", headers=headers).status_code == 413


def test_one_upload_too_many_waits_and_then_comes_again(gateway: RunningGateway, worker: TinyWorker) -> None:
    """Its place is taken by one who sends slowly; text alone needs none."""
    gateway.gateway.places = Places(count=1, wait_s=0.2)
    fixed = "POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head = f"{fixed}Content-Length: 100000\r\n\r\n{{"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as slow:
        slow.sendall(head.encode())
        until(gateway.gateway.places.semaphore.locked)
        refused = gateway.ask(image=IMAGE)
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0
        assert gateway.ask().status_code == 200
    until(lambda: not gateway.gateway.places.semaphore.locked())
    assert gateway.ask(image=IMAGE).status_code == 200


def test_a_place_is_left_before_the_wait_for_the_picture(gateway: RunningGateway, worker: TinyWorker) -> None:
    gateway.gateway.places = Places(count=1, wait_s=0.2)
    worker.hold.set()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(gateway.ask, image=IMAGE)
        until(lambda: worker.taken)
        gateway.start(image=IMAGE)
        worker.hold.clear()
        assert waiting.result().status_code == 200


def test_a_refused_upload_leaves_its_place(gateway: RunningGateway, worker: TinyWorker) -> None:
    gateway.gateway.places = Places(count=1, wait_s=0.2)
    for _ in range(3):
        errors(gateway.ask(image=base64(b"?" * 8000)))
    assert gateway.ask(image=IMAGE).status_code == 200


@pytest.fixture
def running(redis_url: str, tmp_path: Path) -> Iterator[httpx.Client]:
    """A gateway process, which has had a picture before; nothing else needs to run."""
    fleet = Fleet(redis_url, tmp_path / "fleet")
    try:
        fleet.start_worker()
        with serving(fleet) as client:
            client.headers["X-Pid"] = str(fleet.others[-1].pid)
            yield client
    finally:
        fleet.close()


def test_50_uploads_at_once_leave_the_memory_bounded(running: httpx.Client) -> None:
    """Each as large as is allowed: as files, and as pixels to decode."""
    heavy, wide = file_of(noise(1120, 1180)), file_of(noise(1, 1).repeat(4096, 0).repeat(4096, 1))
    assert 3.7 * 2**20 < len(heavy) < 4 * 2**20
    process = psutil.Process(int(running.headers["X-Pid"]))

    def post(number: int) -> int:
        files = {"image": wide if number % 5 == 0 else heavy}
        data = {"prompt": "a red circle", "strength": "0"}
        headers = {"Prefer": "respond-async"}
        with httpx.Client(base_url=running.base_url, timeout=60) as client:
            return client.post("/generate", files=files, data=data, headers=headers).status_code

    post(1)
    before, peak, done = process.memory_info().rss, [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], process.memory_info().rss)
            time.sleep(0.005)

    with ThreadPoolExecutor(51) as pool:
        watching = pool.submit(watch)
        try:
            statuses = Counter(pool.map(post, range(50)))
        finally:
            done.set()
        watching.result()
    assert set(statuses) <= {200, 202, 503}
    assert statuses[200] + statuses[202] >= 16
    assert peak[0] - before < MEMORY, f"{(peak[0] - before) >> 20} MB"
