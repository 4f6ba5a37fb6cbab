"""What `vqd up` is made of, without Triton: its links, its Python processes, its memory."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import SetupError
from service.local.links import Links
from service.local.processes import OURSELVES, end, spawn
from service.local.shared_memory import require_shared_memory
from service.local.stubs import Stubs
from service.local.wheel import find_triton

AWKWARD = ["a b", "é", "a;b", "$HOME", "a'b", 'a"b', "a:b", "a&b", "~", "*"]


@pytest.fixture
def links(tmp_path: Path) -> Links:
    (tmp_path / "links").mkdir()
    return Links(tmp_path / "links")


def test_a_plain_path_is_used_as_it_is(links: Links, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr")
    assert links.plain(Path("/usr/lib/python3.11/x-y_z+1")) == Path("/usr/lib/python3.11/x-y_z+1")
    assert links.plain(Path("lib")) == Path("/usr/lib"), "the working folder need not be plain"
    assert list(links.folder.iterdir()) == []


@pytest.mark.parametrize("name", AWKWARD)
def test_any_other_path_gets_a_link_that_no_shell_changes(
    name: str, links: Links, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "file").write_text(name)
    monkeypatch.chdir(tmp_path / name)
    for path in (tmp_path / name, Path("../") / name):
        plain = links.plain(path)
        shown = subprocess.run(["sh", "-c", f"cat {plain}/file"], capture_output=True, check=True).stdout
        assert shown.decode() == name
        assert str(plain).isascii()
        assert ":" not in str(plain)


def test_the_stub_gets_our_python_whatever_is_on_path(
    links: Links, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    environment = find_triton().environment(links)
    python = shutil.which("python3", path=environment["PATH"])
    assert python
    assert Path(python).samefile(Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}"))
    assert environment["PATH"].endswith(":/usr/bin:/bin")


@pytest.fixture
def stub() -> Iterator[subprocess.Popen[bytes]]:
    """A child that looks as Triton starts its Python: the model's name is among the last words."""
    words = [
        "/x/triton_python_backend_stub",
        "-c",
        "import time; time.sleep(100)",
        "336",
        "diffusion_step_0_0",
        "DEFAULT",
    ]
    with subprocess.Popen(words, executable=sys.executable, stdout=subprocess.DEVNULL) as process:
        yield process
        process.kill()


def look(stubs: Stubs) -> str | None:
    stubs.next_look_s = 0
    return stubs.loss()


def test_a_dead_stub_is_named_even_while_nobody_has_asked_for_its_end(stub: subprocess.Popen[bytes]) -> None:
    stubs = Stubs(os.getpid(), models=3)
    assert look(stubs) is None
    assert stubs.seen == {stub.pid: "diffusion_step"}
    stub.kill()
    os.waitid(os.P_PID, stub.pid, os.WEXITED | os.WNOWAIT)
    assert look(stubs) == "lost the Python process of diffusion_step"
    stub.wait()
    assert look(stubs) == "lost the Python process of diffusion_step"


def test_a_stub_that_ended_before_it_was_seen_is_lost(stub: subprocess.Popen[bytes]) -> None:
    stub.kill()
    os.waitid(os.P_PID, stub.pid, os.WEXITED | os.WNOWAIT)
    assert look(Stubs(os.getpid(), models=3)) == "lost the Python process of one of the models"


def test_a_command_of_the_server_that_has_ended_is_no_stub() -> None:
    """It runs some in a shell when it starts."""
    with subprocess.Popen(["sh", "-c", "exit"]) as command:
        os.waitid(os.P_PID, command.pid, os.WEXITED | os.WNOWAIT)
        assert look(Stubs(os.getpid(), models=3)) is None


def test_stubs_of_others_are_not_ours(stub: subprocess.Popen[bytes]) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        stubs = Stubs(other.pid, models=3)
        assert look(stubs) is None
        assert stubs.seen == {}
        other.kill()


def test_too_little_shared_memory_is_said_with_the_remedy() -> None:
    assert "MB free in /dev/shm" in require_shared_memory()
    with pytest.raises(SetupError, match=r"^/proc has 0 MB free and Triton needs 16 MB there; .*--shm-size"):
        require_shared_memory(Path("/proc"))
    with pytest.raises(SetupError, match=r"^cannot write to /no/such: No such file or directory$"):
        require_shared_memory(Path("/no/such"))


def test_a_command_of_ours_does_not_look_into_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "service.py").write_text("raise SystemExit('not the service that you want')")
    monkeypatch.chdir(tmp_path)
    process = spawn([*OURSELVES, "--version"], tmp_path / "log")
    assert process.wait(30) == 0
    end(process)
    assert (tmp_path / "log").read_text().startswith("vqd ")
