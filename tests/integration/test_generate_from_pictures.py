"""``vqd generate --image --mask --strength`` and ``--preview``, by a real gateway."""

import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from commands import started, vqd
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)
from picture_files import file_of, half_mask, noise
from test_gateway_previews import put

from service.client.events import Event
from service.client.job import JobFacts
from service.client.so_far import PreviewFiles
from service.errors import SetupError
from service.messages import Status
from service.queue import keys
from service.settings import Settings

PROMPT = "a red circle"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a picture, a mask and a text."""
    (tmp_path / "image.png").write_bytes(file_of(noise(64, 64)))
    (tmp_path / "mask.png").write_bytes(file_of(half_mask(64)))
    (tmp_path / "text.png").write_text("hello")
    return tmp_path


@pytest.fixture
def store(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.redis_url) as client:
        yield client


def edits(worker: TinyWorker) -> list[Any]:
    return [worker.background.call(worker.queue.view(job)).job.edit for job in worker.taken]


def tell(worker: TinyWorker, job_id: str, number: int) -> None:
    """Another event of the first evaluation of a job that the worker holds."""
    event = Event(evaluation=1, evaluations=4, committed=0.25, status=Status.RUNNING)
    row: dict[Any, Any] = event.model_dump(mode="json", include={"evaluation", "evaluations", "committed", "status"})

    async def announce() -> None:
        await worker.queue.redis.xadd(keys.events(job_id), row, id=f"1-{number}")
        await worker.queue.redis.publish(keys.CHANNEL, job_id)

    worker.background.call(announce())


def test_a_picture_begins_with_another(gateway: RunningGateway, worker: TinyWorker, folder: Path) -> None:
    options = ("--image", "image.png", "--mask", "mask.png", "--strength", "0.6", "--no-composite")
    done = vqd("generate", PROMPT, *options, "--seed", "7", "--url", gateway.url, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("outputs/a-red-circle-7-0.png  seed 7")
    (edit,) = edits(worker)
    assert (edit.strength, edit.composite) == (0.6, False)
    assert edit.changes
    replayed = vqd(
        "replay", "outputs/a-red-circle-7-0.png", *options[:4], "--url", gateway.url, cwd=folder
    )  # the same two options
    assert replayed.stdout == "outputs/a-red-circle-7-0.png: equal\n"


def test_the_picture_may_come_from_a_pipe(gateway: RunningGateway, worker: TinyWorker, folder: Path) -> None:
    command = [sys.executable, "-m", "service.cli", "generate", PROMPT, "--image", "-", "--url", gateway.url]
    subprocess.run(command, cwd=folder, input=(folder / "image.png").read_bytes(), check=True, timeout=60)
    vqd("generate", PROMPT, "--image", "image.png", "--url", gateway.url, cwd=folder)
    piped, named = edits(worker)
    assert piped.image_sha256 == named.image_sha256


def test_every_cell_of_a_sheet_begins_with_it(gateway: RunningGateway, worker: TinyWorker, folder: Path) -> None:
    command = ("generate", PROMPT, "--image", "image.png", "--mask", "mask.png", "--grid", "s=1,2")
    assert vqd(*command, "--url", gateway.url, cwd=folder).returncode == 0
    assert len({edit.image_sha256 for edit in edits(worker)}) == 1
    assert [bool(edit.changes) for edit in edits(worker)] == [True, True]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--image", "none.png"), "--image: none.png cannot be read: No such file or directory"),
        (("--image", "."), "--image: . cannot be read: Is a directory"),
        (("--image", "text.png"), "--image: "),
        (("--image", "image.png", "--mask", "text.png"), "--mask: "),
        (("--mask", "mask.png"), "--mask: "),
        (("--image", "image.png", "--strength", "2"), "--strength: "),
        (("--strength", "0.5"), "--strength: "),
        (("--mask", "mask.png"), "--mask: needs image (allowed: only together with image)"),
        (("--n", "9"), "--n: 9 is out of range"),
        (("--guidance-scale", "99"), "--guidance-scale: 99.0 is out of range (allowed: a number from 0 to 20)"),
        (("--image", "none.png", "--grid", "s=1,2"), "--image: none.png cannot be read"),
        (("--guidance-scale", "3", "--grid", "s=1,2"), "--guidance-scale: has no effect: --grid sets it"),
        (("-n", "2", "--grid", "s=1,2"), "--n: has no effect: a sheet is one PNG"),
        (("--format", "webp", "--grid", "s=1,2"), "--format: has no effect: a sheet is one PNG"),
        (("--grid", "s=99"), "guidance_scale: 99.0 is out of range"),
        (("--preview", "--grid", "s=1,2"), "--preview: shows pictures that come one by one, not a --grid"),
    ],
    ids=" ".join,
)
def test_what_is_wrong_names_the_option(
    options: tuple[str, ...], complaint: str, gateway: RunningGateway, worker: TinyWorker, folder: Path
) -> None:
    done = vqd("generate", PROMPT, *options, "--url", gateway.url, cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"vqd: {complaint}")
    assert len(line) > len("vqd: --strength: ") + 10
    assert worker.taken == []


def test_the_picture_so_far_is_a_file_until_it_is_done(
    gateway: RunningGateway, worker: TinyWorker, store: redis.Redis, folder: Path
) -> None:
    worker.hold.set()
    worker.silent.set()
    command = ("-m", "service.cli", "generate", PROMPT, "-n", "2", "--seed", "7", "--preview", "--url", gateway.url)
    with started(*command, cwd=folder) as process:
        until(lambda: gateway.gateway.feeds.listeners == 1, limit_s=60)
        files = [folder / f"outputs/a-red-circle-7-{i}.preview.png" for i in range(2)]
        for number, said in ((8, "eight"), (9, "nine")):
            put(store, worker.taken[0], *(b64encode(f"{said} {i}".encode()).decode() for i in range(2)))
            tell(worker, worker.taken[0], number)
            for i, path in enumerate(files):
                wanted = f"{said} {i}"
                until(lambda path=path, wanted=wanted: path.exists() and path.read_text() == wanted)
        worker.hold.clear()
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    lines = errors.splitlines()
    assert lines == [f"preview, until it is done: outputs/{path.name}" for path in files], "each once"
    assert [line.partition("  ")[0] for line in output.splitlines()] == [
        f"outputs/a-red-circle-7-{i}.png" for i in range(2)
    ]
    assert sorted(path.name for path in (folder / "outputs").iterdir()) == [f"a-red-circle-7-{i}.png" for i in range(2)]


@pytest.mark.parametrize(
    ("sent", "status"),
    [([signal.SIGINT], 130), ([signal.SIGTERM] * 2, 143), ([signal.SIGHUP] * 2, 129)],
    ids=["Ctrl-C", "as by timeout", "a closed terminal"],
)
def test_who_is_told_to_end_leaves_no_job_and_no_file(
    sent: list[signal.Signals],
    status: int,
    gateway: RunningGateway,
    worker: TinyWorker,
    store: redis.Redis,
    folder: Path,
) -> None:
    worker.hold.set()
    worker.silent.set()
    command = ("-m", "service.cli", "generate", PROMPT, "--seed", "7", "--preview", "--url", gateway.url)
    with started(*command, cwd=folder) as process:
        until(lambda: gateway.gateway.feeds.listeners == 1, limit_s=60)
        put(store, worker.taken[0], b64encode(b"so far").decode())
        tell(worker, worker.taken[0], 8)
        until((folder / "outputs/a-red-circle-7-0.preview.png").exists)
        for number in sent:
            process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (status, "")
    assert errors == "preview, until it is done: outputs/a-red-circle-7-0.preview.png\n"
    assert list((folder / "outputs").iterdir()) == []
    assert store.hget(keys.job(worker.taken[0]), "cancel") == b"1"


def test_without_the_option_nobody_makes_a_preview(
    gateway: RunningGateway, worker: TinyWorker, store: redis.Redis, folder: Path
) -> None:
    worker.hold.set()
    with started("-m", "service.cli", "generate", PROMPT, "--url", gateway.url, cwd=folder) as process:
        until(lambda: gateway.gateway.feeds.listeners == 1, limit_s=60)
        assert not store.hexists(keys.job(worker.taken[0]), "preview")
        worker.hold.clear()
        assert process.wait(30) == 0


def test_a_preview_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    made = JobFacts({"id": "1", "status": "running", "parameters": {"seed": 7, "image_index": 0, "format": "webp"}}, "")
    preview = {"index": 1, "b64_png": b64encode(b"whole")}
    event = Event(evaluation=1, evaluations=4, committed=0.5, status=Status.RUNNING, previews=(preview,))  # type: ignore[arg-type]
    with PreviewFiles(tmp_path / "new", print) as files:
        files.write({"prompt": "Red apple"}, made, event)
        (path,) = files.paths.values()
        assert (path.name, path.read_bytes()) == ("red-apple-7-1.preview.png", b"whole")
        assert list((tmp_path / "new").iterdir()) == [path], "and no other is left"
    assert not path.exists()
    with PreviewFiles(tmp_path / "new", print) as files:
        path.mkdir()
        with pytest.raises(SetupError):
            files.write({"prompt": "Red apple"}, made, event)
        path.rmdir()
    with pytest.raises(LookupError), PreviewFiles(tmp_path / "new", {}.__getitem__) as files:
        files.write({"prompt": "Red apple"}, made, event)
    assert list((tmp_path / "new").iterdir()) == [], "whatever went wrong"
    with (
        PreviewFiles(tmp_path / "file", print) as files,
        pytest.raises(SetupError, match=r"^cannot write to .*/file/red-apple-7-1\.preview\.png: "),
    ):
        files.write({"prompt": "Red apple"}, made, event)
