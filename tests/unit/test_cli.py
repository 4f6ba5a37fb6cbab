"""The ``vqd`` command as its users meet it: what it offers, and errors of one line with status 1."""

import io
import json
import os
import re
import socket
import sys
import tomllib
from pathlib import Path

import pytest
from commands import complaint, on_terminal, run, vqd
from typer.main import get_group
from unit.model_folder import write_model

from service.cli.app import COMMANDS, be_lenient, loader
from service.cli.generate import named_as_options
from service.cli.up import for_people
from service.errors import InvalidRequest, SetupError
from service.export.precision import Precision
from service.folders import held
from service.local.doctor import describe_port
from service.local.supervisor import Supervisor
from service.settings import Settings, read_settings
from service.sockets import free_port

ROOT = Path(__file__).parents[2]
EXTRAS = re.compile(r"vqd\[([a-z,]+)\]")
TOP = {command.split()[0] for command in COMMANDS}
GROUPS = {"bench", "keys"}
WITHIN = {group: {command.split()[1] for command in COMMANDS if command.startswith(f"{group} ")} for group in GROUPS}


@pytest.mark.parametrize(
    ("group", "commands"),
    [((), TOP), *(((group,), commands) for group, commands in sorted(WITHIN.items()))],
)
def test_help_lists_every_command(group: tuple[str, ...], commands: set[str], tmp_path: Path) -> None:
    done = vqd(*group, "--help", cwd=tmp_path, COLUMNS="120")
    assert done.returncode == 0
    listed = [words[1] for line in done.stdout.splitlines() if len(words := line.split()) > 2 and words[0] in "│|"]
    assert commands == {word for word in listed if not word.startswith("-")}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_where_the_table_says_and_helps_with_the_same_words(command: str) -> None:
    module = get_group(loader(command, COMMANDS[command])())
    found = module.commands.get(command.rsplit(maxsplit=1)[-1], module)
    assert (found.help or "").split("\n\n")[0] == COMMANDS[command].help
    places = {other.split()[-1] for other in COMMANDS if COMMANDS[other].module == COMMANDS[command].module}
    assert found is module or set(module.commands) == places


def test_version_is_that_of_the_package(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    done = vqd("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"vqd {project['version']}\n", "")


WITHOUT = """
import sys
class Without:
    def find_spec(self, name, *_):
        if name in {packages}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Without())
from service.cli.app import main
main()
"""


def without(*packages: str) -> list[str]:
    """The command as a process in which ``packages`` are not installed; its arguments follow."""
    return [sys.executable, "-c", WITHOUT.format(packages=packages)]


@pytest.mark.parametrize("command", ["", "up", "generate", "gateway", "worker", "bench", "keys", "keys create"])
def test_help_needs_neither_torch_nor_the_lab(command: str, tmp_path: Path) -> None:
    done = run([*without("torch", "service.lab"), *command.split(), "--help"], tmp_path, {})
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage" in done.stdout


@pytest.mark.parametrize(
    ("command", "package", "install"),
    [
        ("export", "torch", "'vqd[export]'"),
        ("convert", "torch", "'vqd[export]'"),
        ("convert", "yaml", "'vqd[export]'"),
        ("doctor", "torch", "'vqd[local]'"),
        ("train codec", "torch", "'vqd[train]'"),
        ("evaluate", "torch", "'vqd[train]'"),
        ("bench flips", "torch", "'vqd[test]'"),
        ("bench load", "tqdm", "vqd"),
        ("gateway", "fastapi", "vqd"),
    ],
)
def test_a_missing_package_is_named_with_what_installs_it(
    command: str, package: str, install: str, tmp_path: Path
) -> None:
    message = complaint(run([*without(package), *command.split()], tmp_path, {}))
    assert message == f"vqd: the package {package!r} is missing: pip install {install}"


def test_every_extra_that_is_advised_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "Dockerfile", *ROOT.glob("service/**/*.py")]
    advised = {name for page in pages for names in EXTRAS.findall(page.read_text()) for name in names.split(",")}
    assert {place.extra for place in COMMANDS.values() if place.extra} | advised <= set(extras)
    assert {"local", "export", "otel"} <= advised


def test_the_slim_images_say_what_they_lack(tmp_path: Path) -> None:
    message = complaint(run([*without("service.lab"), "bench", "load", "http://127.0.0.1:1"], tmp_path, {}))
    assert message == "vqd: `vqd bench load` is left out of the images of gateway and worker"


def test_our_own_mistakes_are_not_taken_for_missing_packages(tmp_path: Path) -> None:
    done = run([*without("service.local.up"), "up"], tmp_path, {})
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'service.local.up'" in done.stderr


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
    doing = done.stderr.splitlines()
    assert doing[0] == f"exporting: reading {tmp_path / 'model'}"
    assert doing[-1] == f"exporting: writing {tmp_path / 'repository'}"
    assert len(doing) == len(set(doing))


def test_on_a_terminal_export_leaves_only_its_result(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    shown = on_terminal("export", "--model", "model", "--repository", "repository", cwd=tmp_path)
    steps = [step.rstrip() for step in shown.split("\r")]
    assert "exporting: reading model" in steps
    assert "exporting: trying the diffusion step" in steps
    assert [line.rpartition("\r")[2] for line in shown.split("\r\n")] == [steps[-2], ""]
    assert steps[-2].startswith("repository: tiny ")


def test_doctor_finds_nothing_missing(tmp_path: Path) -> None:
    done = vqd("doctor", cwd=tmp_path, VQD_PORT=str(free_port()))
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    whats = [line.split(":")[0].removeprefix("ok").strip() for line in lines]
    parts = ["Python", "redis-server", "Triton", "shared memory", "processor", "model folder", "model repository"]
    assert whats == [*parts, "output folder", "port", "proxies"]
    assert lines[whats.index("processor")].endswith(f": --dtype auto is {Precision.AUTO.decided()}")


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


@pytest.mark.parametrize(
    "command",
    [
        ("generate", "red apple", "--out"),
        ("up", "--out"),
        ("export", "--repository"),
        ("doctor", "--model", "none", "--out"),
        ("bench", "flips", "--out"),
        ("train", "data", "--packages"),
    ],
    ids=" ".join,
)
def test_a_folder_that_cannot_be_written_is_said_in_one_line_before_the_work(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    done = vqd(*command, "/proc/x/y", cwd=tmp_path, VQD_PORT=str(free_port()))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "exporting: " not in done.stderr
    (line,) = [line for line in (done.stdout + done.stderr).splitlines() if "/proc/x" in line]
    assert line.endswith(": No such file or directory")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("command", "variables"), [("worker", {}), ("gateway", {"VQD_HOST": "203.0.113.1"})])
def test_a_process_that_logs_notes_it_in_its_log(command: str, variables: dict[str, str], tmp_path: Path) -> None:
    variables = {"VQD_REPOSITORY": str(tmp_path), **variables}
    note, error = vqd(command, cwd=tmp_path, VQD_PROT="1", **variables).stderr.splitlines()
    record = json.loads(note)
    assert (record["level"], "did you mean VQD_PORT?" in record["message"]) == ("WARNING", True)
    assert error.startswith("vqd: VQD_")


def test_up_names_the_settings_that_it_does_not_use(tmp_path: Path) -> None:
    variables = {"VQD_REDIS_URL": "redis://10.9.9.9:1/0", "VQD_TRITON_URL": "10.9.9.9:1", "VQD_MAX_ROWS": "3"}
    note, _ = vqd("up", "--out", "/proc/x", cwd=tmp_path, **variables).stderr.splitlines()
    assert note.startswith("vqd: note: VQD_REDIS_URL, VQD_TRITON_URL: not used")


def test_up_elsewhere_shows_its_first_key_once(tmp_path: Path) -> None:
    """Before it finds that there is no such model."""
    first, second = [
        vqd("up", "--model", "none", "--port", "0", cwd=tmp_path, VQD_HOST="0.0.0.0", VQD_LOG_LEVEL="DEBUG")
        for _ in range(2)
    ]
    token = (tmp_path / "outputs/run/keys").read_text().strip()
    assert first.stdout == f"API key, shown this once and kept in {tmp_path / 'outputs/run/keys'}: {token}\n"
    assert second.stdout == ""
    assert token not in first.stderr + second.stderr
    assert "none" in first.stderr


@pytest.mark.parametrize("variables", [{}, {"VQD_HOST": "0.0.0.0", "VQD_ALLOW_UNAUTHENTICATED": "true"}])
def test_up_makes_no_key_where_none_is_needed(variables: dict[str, str], tmp_path: Path) -> None:
    done = vqd("up", "--model", "none", "--port", "0", cwd=tmp_path, **variables)
    assert done.stdout == ""
    assert not (tmp_path / "outputs/run/keys").exists()


def test_up_names_a_wrong_key_file(tmp_path: Path) -> None:
    message = complaint(vqd("up", "--port", "0", cwd=tmp_path, VQD_KEY_FILE="none"))
    assert message == "vqd: VQD_KEY_FILE=none: No such file or directory"


@pytest.mark.parametrize("command", ["generate", "bench load", "bench pictures"])
def test_no_help_shows_the_key_that_is_set(command: str, tmp_path: Path) -> None:
    done = vqd(*command.split(), "--help", cwd=tmp_path, VQD_API_KEY="sesame-open-1234", COLUMNS="200")
    assert "--api-key" in done.stdout
    assert "VQD_API_KEY" in done.stdout
    assert "sesame" not in done.stdout + done.stderr


def test_up_has_no_replicas_to_wait_for(tmp_path: Path) -> None:
    note, _ = vqd("up", "--out", "/proc/x", cwd=tmp_path, VQD_DURABLE_REPLICAS="1").stderr.splitlines()
    assert note.startswith("vqd: note: VQD_DURABLE_REPLICAS: not used")
    assert Supervisor(Settings(port=0, durable_replicas=1), tmp_path).environment["VQD_DURABLE_REPLICAS"] == "0"


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_letters_that_the_locale_lacks_end_no_command(errors: str) -> None:
    """A path whose bytes are no text leaves as it came where the locale allows that."""
    stream = io.TextIOWrapper(buffer := io.BytesIO(), encoding="ascii", errors=errors)
    be_lenient(stream)
    print("caf\udce9", file=stream, flush=True)
    assert buffer.getvalue() == (b"caf\\udce9\n" if errors == "strict" else b"caf\xe9\n")


def test_doctor_tells_of_misspelt_settings_proxies_and_who_uses_the_folder(tmp_path: Path) -> None:
    odd = {"http_proxy": "http://x", "GRPC_PROXY": "http://x", "VQD_PROT": "1", "VQD_LOG_LEVEL": "info"}
    with held(tmp_path / "outputs/run", "choose another"):
        done = vqd("doctor", "--model", "é", cwd=tmp_path, LC_ALL="C", **odd)
    assert done.stderr == "vqd: note: VQD_PROT is no setting and does nothing; did you mean VQD_PORT?\n"
    assert f"ok       output folder: outputs is in use by process {os.getpid()}" in done.stdout
    assert "ok       proxies: GRPC_PROXY, http_proxy" in done.stdout
    assert re.search(r"ok       shared memory: \d+ MB free", done.stdout)
    assert re.search(r"MISSING  model folder: .*: there is no such model folder", done.stdout)


def test_doctor_tells_a_taken_port_from_one_that_cannot_be() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert "is taken" in describe_port(Settings(port=server.getsockname()[1]))
    assert "is free" in describe_port(Settings(host="::1", port=0))
    with pytest.raises(SetupError, match=r"^203\.0\.113\.1, port 8080, .*: Cannot assign requested address; "):
        describe_port(Settings(host="203.0.113.1"))


def test_an_option_that_would_help_is_named_as_one() -> None:
    with pytest.raises(InvalidRequest, match=r"^prompt: have it cut with --truncate-prompt$"), named_as_options({}):
        raise InvalidRequest("prompt", "have it cut with truncate_prompt")


@pytest.mark.parametrize(("option", "variables"), [("--port=99999", {}), ("VQD_PORT='99999'", {"VQD_PORT": "99999"})])
def test_a_wrong_setting_is_named_as_it_was_given(option: str, variables: dict[str, str], tmp_path: Path) -> None:
    given = [] if variables else [option]
    message = complaint(vqd("up", *given, cwd=tmp_path, **variables))
    assert message == f"vqd: {option}: Input should be less than or equal to 65535"
