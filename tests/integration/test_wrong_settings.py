"""A wrong or missing setting stops the process at its start, with one line that names it and status 1."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import complaint, run, vqd
from fleet import write_repository


@pytest.mark.parametrize("command", ["gateway", "worker"])
@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("VQD_PORT", "eighty", "integer"),
        ("VQD_LOG_FORMAT", "xml", "'json' or 'text'"),
        ("VQD_TRITON_URL", "http://triton:8001", "pattern"),
        ("VQD_OTLP_ENDPOINT", "collector:4318", "pattern"),
    ],
)
def test_a_wrong_setting_is_named(command: str, variable: str, value: str, reason: str, tmp_path: Path) -> None:
    message = complaint(vqd(command, cwd=tmp_path, **{variable: value}))
    assert f"{variable}={value!r}" in message
    assert reason in message


def test_several_wrong_settings_are_all_named(tmp_path: Path) -> None:
    wrong = {"VQD_LEASE_MS": "1", "VQD_LOG_LEVEL": "LOUD"}
    message = complaint(vqd("worker", cwd=tmp_path, **wrong, VQD_REDIS_URL="http://:secret@redis:6379"))
    assert all(f"{variable}={value!r}" in message for variable, value in wrong.items())
    assert "VQD_REDIS_URL: " in message
    assert "secret" not in message


@pytest.mark.parametrize(("content", "says"), [(None, "No such file"), ("a short key", "line 1 is no key")])
def test_a_wrong_key_file_is_refused_in_one_line(content: str | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    if content:
        path.write_text(content)
    message = complaint(vqd("gateway", cwd=tmp_path, VQD_KEY_FILE=str(path)))
    assert f"VQD_KEY_FILE={path}: " in message
    assert says in message
    assert "a short key" not in message


@pytest.fixture
def taken_port() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield str(server.getsockname()[1])


def test_a_gateway_that_cannot_listen_names_the_settings(taken_port: str, tmp_path: Path) -> None:
    assert f"VQD_PORT={taken_port}" in complaint(vqd("gateway", cwd=tmp_path, VQD_PORT=taken_port))
    nowhere = complaint(vqd("gateway", cwd=tmp_path, VQD_HOST="203.0.113.1"))
    assert "VQD_HOST=203.0.113.1" in nowhere


def test_a_worker_whose_metrics_port_is_taken_names_it(taken_port: str, tmp_path: Path) -> None:
    write_repository(tmp_path)
    variables = {"VQD_REPOSITORY": str(tmp_path), "VQD_WORKER_METRICS_PORT": taken_port}
    assert f"VQD_WORKER_METRICS_PORT={taken_port}" in complaint(vqd("worker", cwd=tmp_path, **variables))


@pytest.mark.parametrize("command", ["gateway", "worker"])
def test_traces_without_the_extra_name_both(command: str, tmp_path: Path) -> None:
    write_repository(tmp_path)
    without = f"import sys; sys.argv = ['vqd', '{command}']; sys.modules['opentelemetry.exporter'] = None"
    code = f"{without}; from service.cli.app import main; main()"
    variables = {"VQD_OTLP_ENDPOINT": "http://127.0.0.1:4318", "VQD_PORT": "0", "VQD_REPOSITORY": str(tmp_path)}
    message = complaint(run([sys.executable, "-c", code], tmp_path, variables))
    assert "VQD_OTLP_ENDPOINT" in message
    assert "vqd[otel]" in message
