"""The ``vqd`` command as its users meet it: what it offers, and errors of one line with status 1."""

from pathlib import Path

import pytest
from commands import complaint, vqd
from unit.model_folder import write_model

from service.cli.app import for_people
from service.settings import read_settings
from service.sockets import free_port

COMMANDS = ("up", "generate", "gateway", "worker", "export", "doctor", "train")


def test_help_lists_the_commands(tmp_path: Path) -> None:
    done = vqd("--help", cwd=tmp_path, COLUMNS="120")
    assert done.returncode == 0
    listed = {words[1] for line in done.stdout.splitlines() if len(words := line.split()) > 2 and words[0] in "│|"}
    assert listed.issuperset(COMMANDS)


@pytest.mark.parametrize(("told", "used"), [(None, "text"), ("text", "text"), ("json", "json")])
def test_up_logs_for_people_unless_told_otherwise(told: str | None, used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if told:
        monkeypatch.setenv("VQD_LOG_FORMAT", told)
    assert for_people(read_settings()).log_format == used


def test_generate_with_nothing_running_says_how_to_start(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    message = complaint(vqd("generate", "red apple", "--url", url, cwd=tmp_path))
    assert url in message
    assert "vqd up" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, "{}", "no JSON"])
def test_a_worker_without_a_repository_names_the_file(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "vqd.json"
    if content is not None:
        path.write_text(content)
    message = complaint(vqd("worker", cwd=tmp_path, VQD_REPOSITORY=str(tmp_path)))
    assert f"VQD_REPOSITORY={tmp_path}" in message
    assert str(path) in message
    assert "vqd export" in message


def test_export_names_the_backends(tmp_path: Path) -> None:
    message = complaint(vqd("export", "--backend", "nonsense", "--repository", tmp_path / "repository", cwd=tmp_path))
    assert all(word in message for word in ("nonsense", "python", "pytorch"))
    assert list(tmp_path.iterdir()) == []


def test_export_writes_the_repository_and_says_so(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    done = vqd("export", "--model", tmp_path / "model", "--repository", tmp_path / "repository", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path / 'repository'}: tiny ")
    assert (tmp_path / "repository/vqd.json").exists()


def test_doctor_finds_nothing_missing(tmp_path: Path) -> None:
    done = vqd("doctor", cwd=tmp_path, VQD_PORT=str(free_port()))
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    whats = [line.split(":")[0].removeprefix("ok").strip() for line in lines]
    assert whats == ["Python", "redis-server", "Triton", "model folder", "model repository", "port"]


def test_doctor_says_what_is_missing(tmp_path: Path) -> None:
    done = vqd("doctor", "--model", tmp_path / "none", "--repository", tmp_path / "repository", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    missing = [line for line in done.stdout.splitlines() if line.startswith("MISSING")]
    assert [line.split(":")[0].split(maxsplit=1)[1] for line in missing] == ["model folder"]
    assert str(tmp_path / "none") in missing[0]


def test_doctor_survives_a_spoilt_repository(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    (tmp_path / "vqd.json").write_text("no JSON")
    done = vqd("doctor", "--model", tmp_path / "model", "--repository", tmp_path, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert any(line.startswith("MISSING") and str(tmp_path / "vqd.json") in line for line in done.stdout.splitlines())
