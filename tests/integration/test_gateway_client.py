"""The client behind `vqd generate`, against a real gateway."""

import io
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from both_sides import failing
from commands import on_terminal, vqd
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)
from PIL import Image

from service.client.blocking.client import Client
from service.client.saving import generate
from service.errors import InferenceFailed, InvalidRequest, NotFound, SetupError, Unavailable
from service.messages import Event, Status
from service.sockets import free_port

FIELDS: dict[str, Any] = {"prompt": "a red circle", "seed": 9, "n": 2, "format": "webp"}


def test_pictures_are_saved(gateway: RunningGateway, worker: TinyWorker, tmp_path: Path) -> None:
    events: list[Event] = []
    outcome = generate(gateway.url, FIELDS, tmp_path / "new", events.append)
    assert [event.status for event in events] == [Status.RUNNING, Status.RUNNING, Status.SUCCEEDED]
    assert [Image.open(io.BytesIO(saved.path.read_bytes())).format for saved in outcome.images] == ["WEBP", "WEBP"]
    assert [saved.path.name for saved in outcome.images] == [f"a-red-circle-9-{i}.webp" for i in (0, 1)]
    assert [saved.seed for saved in outcome.images] == [9, 9]
    assert outcome.answer["parameters"]["format"] == "webp"


def test_warnings_are_printed(gateway: RunningGateway, worker: TinyWorker, tmp_path: Path) -> None:
    assert generate(gateway.url, FIELDS, tmp_path).warnings == ()
    worker.warnings = ("prompt: the model does not know '\U0001f34e'; it was drawn as an unknown word", "another")
    assert generate(gateway.url, FIELDS, tmp_path).warnings == worker.warnings
    done = vqd("generate", "red", "--truncate-prompt", "--url", gateway.url, cwd=tmp_path, PYTHONIOENCODING="utf-8")
    assert done.stderr.splitlines() == [f"warning: {warning}" for warning in worker.warnings]
    assert len(done.stdout.splitlines()) == 1


def test_errors_have_their_class(gateway: RunningGateway, worker: TinyWorker, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"n: 9 is out of range \(allowed: a whole number from 1 to 4\)") as caught:
        generate(gateway.url, FIELDS | {"n": 9}, tmp_path)
    assert caught.value.field == "n"
    with pytest.raises(InvalidRequest, match=r"^sampler: must be one of purity, [^(]*, not 'euler'$"):
        generate(gateway.url, FIELDS | {"sampler": "euler"}, tmp_path)
    with pytest.raises(NotFound, match="shapes"):
        generate(gateway.url, FIELDS | {"model": "nope"}, tmp_path)
    worker.failure = failing("out of colours")
    with pytest.raises(InferenceFailed, match="out of colours"):
        generate(gateway.url, FIELDS, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_service(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="vqd up"):
        generate(f"http://127.0.0.1:{free_port()}", FIELDS, tmp_path)


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "no proxy"])
def test_to_this_machine_no_proxy_is_asked(
    proxy: str, gateway: RunningGateway, worker: TinyWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, proxy)
    assert generate(gateway.url, FIELDS, tmp_path).images


@pytest.mark.parametrize(
    ("url", "proxy"),
    [("http://[", ""), ("http://a:b", ""), ("http://a", "socks5://127.0.0.1:9"), ("http://a", "x://a")],
)
def test_a_url_or_proxy_that_is_none_is_named(url: str, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", proxy)
    with pytest.raises(SetupError, match=f"^{re.escape(url)} cannot be reached: "):
        Client(url)


def test_a_folder_is_tried_before_the_job_is_sent(gateway: RunningGateway, worker: TinyWorker) -> None:
    with pytest.raises(SetupError, match=r"^cannot write to /proc/x: "):
        generate(gateway.url, FIELDS, Path("/proc/x"))
    assert worker.taken == []


def test_pictures_that_cannot_be_saved_are_still_with_the_service(
    gateway: RunningGateway, worker: TinyWorker, tmp_path: Path
) -> None:
    folder = tmp_path / "new"

    def spoil(event: Event) -> None:
        folder.write_text("a file by now")

    with pytest.raises(SetupError, match=rf"cannot write to {folder}/.*: File exists; .* GET /jobs/.*/images/0"):
        generate(gateway.url, FIELDS, folder, spoil)


def test_bytes_that_are_no_text_are_refused_by_the_name_of_their_field(
    gateway: RunningGateway, worker: TinyWorker, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match=r"^prompt: .*without lone surrogates"):
        generate(gateway.url, FIELDS | {"prompt": "caf\udce9"}, tmp_path)


def test_an_interrupt_cancels_the_job(gateway: RunningGateway, worker: TinyWorker, tmp_path: Path) -> None:
    worker.hold.set()

    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(gateway.url, FIELDS, tmp_path, interrupt)
    until(lambda: gateway.job(worker.taken[0])["status"] == "cancelled")


def test_events_go_on_with_the_next_gateway(gateway: RunningGateway, worker: TinyWorker) -> None:
    """The gateway ends its streams when it stops; the client goes on where it was."""
    worker.hold.set()
    seen: list[Event] = []
    with Client(gateway.url) as client:
        job = client.submit(**FIELDS)

        def follow() -> None:
            seen.extend(job.events())

        reader = threading.Thread(target=follow)
        reader.start()
        until(lambda: job.id in gateway.gateway.notifier.watches)
        stopping = gateway.gateway.stopping
        gateway.background_call(stopping.set)
        until(lambda: job.id not in gateway.gateway.notifier.watches)
        gateway.background_call(stopping.clear)
        worker.hold.clear()
        reader.join(15)
    assert [event.evaluation for event in seen][:2] == [1, 2]
    assert seen[-1].status is Status.SUCCEEDED
    assert len(seen) == 3


def test_the_command_prints_a_line_per_picture_and_nothing_else(
    gateway: RunningGateway, worker: TinyWorker, tmp_path: Path
) -> None:
    done = vqd("generate", "a red circle", "-n", "2", "--seed", "9", "--url", gateway.url, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    paths = [f"outputs/a-red-circle-9-{index}.png" for index in (0, 1)]
    assert done.stdout.splitlines() == [f"{path}  seed 9  tokens {'0' * 16}" for path in paths]
    assert all((tmp_path / path).exists() for path in paths)


def test_on_a_terminal_the_command_shows_a_bar_and_leaves_the_time(
    gateway: RunningGateway, worker: TinyWorker, tmp_path: Path
) -> None:
    shown = on_terminal("generate", "a red circle", "--n", "2", "--url", gateway.url, cwd=tmp_path)
    assert "\r2 pictures of a red circle: waiting for the first evaluation" in shown
    assert re.search(r"\r2 pictures of a red circle: +\d+ %\|.+\| \d of 4 evaluations, ", shown)
    last = shown.removesuffix("\r\n").rpartition("\n")[2]
    assert re.fullmatch(r"2 pictures in \d+\.\d s: \d evaluations of the network", last)
