"""``vqd up`` as a process: what it starts it keeps alive, and nothing of it stays behind, however it ends."""

import json
import os
import re
import shutil
import signal
import socket
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis
from integration.gateway_harness import until
from PIL import Image
from running import Up, marked

from service.folders import held
from service.local.shared_memory import SHARED_MEMORY
from service.sockets import free_port

ROOT = Path(__file__).parents[2]
LONG = {"prompt": "red apple", "seed": 7, "tokens_per_step": 1, "steps": 64, "n": 16}
WORKER, TRITON, STUB = "worker", "/tritonserver", "diffusion_step_0_0"
GONE_S = 15.0


def shared_memory(up: Up) -> list[Path]:
    return list(SHARED_MEMORY.glob(f"vqd[_-]{up.process.pid}[_-]*"))


def busy(up: Up) -> None:
    """Wait until it serves and a long job is in the middle of its work."""
    with httpx.Client(base_url=up.url(), timeout=30) as http:
        job = http.post("/generate", json=LONG, headers={"Prefer": "respond-async"}).json()["id"]
        until(lambda: http.get(f"/jobs/{job}").json()["evaluation"] > 0, 60)


def split_lines(output: str) -> tuple[list[str], list[str]]:
    """What it does, and what it has done."""
    lines = output.splitlines()
    doing = [line for line in lines if line.startswith(("exporting: ", "starting: "))]
    return doing, [line for line in lines if line not in doing]


@pytest.fixture
def awkward_folder(tmp_path: Path) -> Path:
    """A working folder with packages of ours and of others in it that are not meant, and a path that needs quoting."""
    folder = tmp_path / "a b é;$HOME 'x'"
    (folder / "service").mkdir(parents=True)
    for name in ("service/__init__.py", "numpy.py", "triton_python_backend_utils.py"):
        (folder / name).write_text("raise SystemExit('not what was meant')")
    return folder


@pytest.fixture
def awkward_variables(awkward_folder: Path, tmp_path: Path) -> dict[str, str]:
    """A proxy that is away, another Python on PATH, our packages below a path that needs quoting, a bare locale."""
    (awkward_folder / "site").symlink_to(sysconfig.get_path("purelib"))
    other = tmp_path / "other/bin/python3"
    library = tmp_path / f"other/lib/python3.{sys.version_info.minor}"
    for place, text in ((other, "#!/bin/false"), (library / "os.py", "raise SystemExit('another Python')")):
        place.parent.mkdir(parents=True)
        place.write_text(text)
    other.chmod(0o755)
    proxies = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
    return {
        **dict.fromkeys(proxies, f"http://127.0.0.1:{free_port()}"),
        "PATH": f"{other.parent}:/usr/bin:/bin",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(awkward_folder / "site")]),
        "LC_ALL": "C",
        "VQD_HOST": "::1",
    }


def test_once_exports_makes_a_picture_and_leaves_nothing_wherever_it_is(
    awkward_folder: Path, awkward_variables: dict[str, str], pipeline: Path
) -> None:
    options = ("--once", "red apple", "--model", pipeline, "--repository", "repository é")
    installed = ("-P", "-m", "service.cli")  # as the command `vqd`, which does not look into the working folder
    with Up(awkward_folder, *options, program=installed, cwd=awkward_folder, **awkward_variables) as up:
        assert up.process.wait(180) == 0, up.errors.read_text()
        assert marked(up.mark) == []
        assert shared_memory(up) == []
        doing, (exported, ready, made) = split_lines(up.output.read_text())
        assert doing[0].startswith(f"exporting: {pipeline}")
        assert "starting: waiting for redis, triton, worker, gateway" in doing
        assert len(doing) == len(set(doing)), "once each"
        assert exported.startswith(f"exported {pipeline}")
        assert re.match(r"ready in \S+ s at http://\[::1\]:\d+ ", ready)
        picture = Path(made.rpartition(": ")[2])
        assert picture.parent == awkward_folder / "out"
        with Image.open(picture) as image:
            assert image.size == (16, 16)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_everything(number: signal.Signals, exported: Path, tmp_path: Path) -> None:
    with Up(tmp_path, "--repository", exported) as up:
        busy(up)
        assert len(marked(up.mark)) >= 5
        told = until(lambda: re.search(r"^API keys: VQD_REDIS_URL=(\S+) vqd keys", up.output.read_text(), re.MULTILINE))
        with redis.Redis.from_url(told[1]) as queue:
            assert queue.ping()
        up.signal(number)
        assert up.process.wait(60) == 130
        assert marked(up.mark) == []
        assert shared_memory(up) == []
        assert "Traceback" not in up.errors.read_text()


def test_an_interrupt_while_starting_ends_everything(exported: Path, tmp_path: Path) -> None:
    with Up(tmp_path, "--repository", exported) as up:
        until(lambda: len(marked(up.mark)) >= 5, 60)
        up.signal(signal.SIGTERM)
        assert up.process.wait(60) == 130
        assert marked(up.mark) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_while_exporting_ends_the_export(
    number: signal.Signals, status: int, pipeline: Path, tmp_path: Path
) -> None:
    with Up(tmp_path / "up", "--model", pipeline, "--repository", tmp_path / "repository") as up:
        until(lambda: len(marked(up.mark)) == 2, 60)
        up.signal(number)
        assert up.process.wait(60) == status
        until(lambda: not marked(up.mark), GONE_S)
        assert not (tmp_path / "repository").exists(), "it was left to end by itself"
        assert "Traceback" not in up.errors.read_text()


@pytest.mark.parametrize(
    "hook",
    [
        "os.register_at_fork(after_in_parent=interrupt)",
        "spawn = server.spawn; server.spawn = lambda *a: (spawn(*a), interrupt())[0]",
    ],
    ids=["in the fork", "before the child is on record"],
)
def test_an_interrupt_during_a_launch_is_not_lost_nor_the_child(hook: str, exported: Path, tmp_path: Path) -> None:
    program = (
        "import os, signal; from service.cli.app import main; import service.local.redis as server; "
        f"interrupt = lambda: (print('now', flush=True), os.kill(os.getpid(), signal.SIGTERM)); {hook}; main()"
    )
    with Up(tmp_path, "--repository", exported, program=("-c", program)) as up:
        assert up.process.wait(30) == 130
        assert marked(up.mark) == []
        assert "Exception ignored" not in up.errors.read_text()
        assert "now" in up.output.read_text()


def test_an_interrupt_in_the_fork_of_the_export_is_not_lost(pipeline: Path, tmp_path: Path) -> None:
    """What is raised there is ignored."""
    program = (
        "import os, signal; from service.cli.app import main; "
        "interrupt = lambda: (print('now', flush=True), os.kill(os.getpid(), signal.SIGINT)); "
        "os.register_at_fork(after_in_parent=interrupt); main()"
    )
    options = ("--model", pipeline, "--repository", tmp_path / "repository")
    with Up(tmp_path / "up", *options, program=("-c", program)) as up:
        assert up.process.wait(30) == 130
        until(lambda: not marked(up.mark), GONE_S)
        assert not (tmp_path / "repository").exists()
        assert "now" in up.output.read_text()


def test_nothing_outlives_a_killed_supervisor(exported: Path, tmp_path: Path) -> None:
    """Even while a job is under way, for which the worker finds neither Triton nor Redis any more."""
    with Up(tmp_path, "--repository", exported) as up:
        busy(up)
        assert len(marked(up.mark)) >= 5
        up.signal(signal.SIGKILL)
        up.wait_gone(GONE_S)


def test_elsewhere_its_own_picture_is_made_with_the_key_that_it_shows(exported: Path, tmp_path: Path) -> None:
    options = ("--repository", exported, "--once", "red apple")
    with Up(tmp_path, *options, VQD_HOST="0.0.0.0", VQD_LOG_LEVEL="DEBUG") as up:
        assert up.process.wait(180) == 0, up.errors.read_text()
    shown = re.search(r"^API key, .*: (vqd_\w+)$", up.output.read_text(), re.MULTILINE)
    assert shown
    picture = up.output.read_text().rstrip().rpartition(": ")[2]
    assert Path(picture).is_file()
    run = tmp_path / "out/run"
    assert " key=file-1" in (run / "gateway.log").read_text()
    written = [path for path in run.rglob("*") if path.is_file() and shown[1].encode() in path.read_bytes()]
    assert written == [run / "keys"]
    assert shown[1] not in up.errors.read_text()


def test_parts_that_die_are_started_again(exported: Path, tmp_path: Path) -> None:
    fields = {"prompt": "red apple", "seed": 7}
    with Up(tmp_path, "--repository", exported) as up, httpx.Client(base_url=up.url(), timeout=90) as http:
        first = http.post("/generate", json=fields).json()["images"]
        for name in (STUB, TRITON, WORKER):
            before = up.pid_of(name)
            os.kill(before, signal.SIGKILL)
            until(lambda before=before: before not in marked(up.mark), GONE_S)
            answer = until(lambda: (a := http.post("/generate", json=fields)).status_code == 200 and a, 90)
            assert answer.json()["images"] == first
            assert up.pid_of(name) != before
        up.signal(signal.SIGINT)
        assert up.process.wait(60) == 130
        assert marked(up.mark) == []
    assert up.errors.read_text().count("starting it again") == 3
    logs = [(tmp_path / f"out/run/{name}.log").read_text() for name in ("worker", "gateway")]
    assert all(" INFO service." in log and "{" not in log for log in logs), "logs of `vqd up` are for people"


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def refused(up: Up) -> str:
    """The one line that it says when it ends with status 1, having left nothing."""
    with up:
        assert up.process.wait(120) == 1
        assert marked(up.mark) == []
    (line,) = up.errors.read_text().splitlines()
    assert line.startswith("vqd: ")
    return line


def test_a_taken_port_is_named(taken_port: int, exported: Path, tmp_path: Path) -> None:
    line = refused(Up(tmp_path, "--repository", exported, "--port", str(taken_port)))
    assert str(taken_port) in line
    assert "VQD_PORT" in line


def test_a_folder_of_another_instance_is_refused(tmp_path: Path) -> None:
    with held(tmp_path / "out/run", "choose another"):
        line = refused(Up(tmp_path))
    assert line == f"vqd: {tmp_path / 'out/run'} is in use by process {os.getpid()}; choose another --out"


@pytest.mark.parametrize("option", ["--out", "--repository"])
def test_a_folder_that_cannot_be_written_is_named(option: str, pipeline: Path, tmp_path: Path) -> None:
    line = refused(Up(tmp_path, "--model", pipeline, option, "/proc/x"))
    assert line.startswith("vqd: cannot write to /proc/x")


def remove(folder: Path) -> Path:
    shutil.rmtree(folder)
    return folder


def forget_config(folder: Path) -> Path:
    (folder / "transformer/config.json").unlink()
    return folder / "transformer/config.json"


def cut_weights(folder: Path) -> Path:
    weights = folder / "vqvae/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return folder / "vqvae"


def change_size(folder: Path) -> Path:
    path = folder / "transformer/config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "num_layers": config["num_layers"] + 1}))
    return folder / "transformer"


@pytest.mark.parametrize("spoil", [remove, forget_config, cut_weights, change_size])
def test_a_broken_model_folder_is_named(spoil: Callable[[Path], Path], pipeline: Path, tmp_path: Path) -> None:
    guilty = spoil(Path(shutil.copytree(pipeline, tmp_path / "model")))
    line = refused(Up(tmp_path / "up", "--model", tmp_path / "model", "--repository", tmp_path / "repository"))
    assert str(guilty) in line
    assert not (tmp_path / "repository").exists()
