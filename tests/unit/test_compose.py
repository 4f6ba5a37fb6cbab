"""docker-compose.yml, its override for GPUs and .env.example: safe, complete, and true to the settings."""

import json
import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import compose
import pytest
import redis
import yaml
from monitoring_files import load, rules

from service.gateway.access.key_file import read_tokens
from service.gateway.access.tokens import OURS as OURS_TOKEN
from service.local.processes import end, spawn
from service.local.redis import find_redis_server
from service.settings import Settings, read_settings
from service.sockets import free_port

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
GPU = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {"gateway": "gateway", "keys": "gateway", "worker": "worker", "export": "export", "triton": "triton"}
"""Service → the image of ours that it runs."""
ONCE = ("export", "keys")
BINARY = Path(compose.__file__).parent / "docker-compose"
EXAMPLE = (ROOT / ".env.example").read_text()
LOOPBACK = "127.0.0.1:"
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
every_service = pytest.mark.parametrize("name", SERVICES)


def with_defaults(text: str) -> str:
    """What compose makes of it without a .env."""
    return VARIABLE.sub(lambda found: found[2], text)


def sources(service: dict[str, Any]) -> list[str]:
    return [with_defaults(volume).split(":")[0] for volume in service.get("volumes", [])]


def health_command(service: dict[str, Any]) -> list[str]:
    return list(service["healthcheck"].get("test", []))


def test_the_services_of_the_contract_are_there() -> None:
    assert set(SERVICES) == {*OURS, "redis", "prometheus", "grafana", "alertmanager"}
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["alertmanager"]


@pytest.mark.parametrize(
    "files",
    [
        ["docker-compose.yml"],
        ["docker-compose.yml", "docker-compose.gpu.yml"],
        ["docker-compose.yml", "docker-compose.s3.yml"],
    ],
)
def test_compose_itself_takes_the_files(files: list[str]) -> None:
    command = [BINARY, *(word for name in files for word in ("-f", ROOT / name)), "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_with_s3_the_worker_keeps_its_networks_and_gets_a_way_out() -> None:
    files = [word for name in ("docker-compose.yml", "docker-compose.s3.yml") for word in ("-f", ROOT / name)]
    command = [BINARY, *files, "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert set(json.loads(done.stdout)["services"]["worker"]["networks"]) == {"front", *SERVICES["worker"]["networks"]}


@pytest.mark.parametrize("version", ["v2.24.0", "2.40.3"])
def test_make_compose_starts_a_compose_that_is_new_enough(tmp_path: Path, version: str) -> None:
    assert make_compose(tmp_path, f"echo {version}").returncode == 0


@pytest.mark.parametrize(("answer", "shown"), [("echo 2.23.3", "2.23.3"), ("exit 1", "none")])
def test_make_compose_says_at_once_what_is_too_old(tmp_path: Path, answer: str, shown: str) -> None:
    done = make_compose(tmp_path, answer)
    assert done.returncode != 0
    assert f"Docker Compose 2.24 or newer is needed, as the command 'docker compose'; here: {shown}." in done.stderr


def make_compose(folder: Path, answer: str) -> "subprocess.CompletedProcess[str]":
    """`make compose` where docker is a script that answers so when asked for its version, and else does nothing."""
    docker = folder / "docker"
    docker.write_text(f'#!/bin/sh\n[ "$2" != version ] || {{ {answer}; }}\n')
    docker.chmod(0o755)
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    command = ["make", "-s", "-C", ROOT, "compose"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@every_service
def test_every_service_is_restarted_and_watched_unless_it_runs_once(name: str) -> None:
    service = SERVICES[name]
    if name in ONCE:
        assert service["restart"] == "no"
        assert service["healthcheck"] == {"disable": True}
    else:
        assert service["restart"] == "unless-stopped"
        assert health_command(service)[0] == "CMD"


@every_service
def test_images_are_pinned(name: str) -> None:
    image = SERVICES[name]["image"]
    if name in OURS:
        assert SERVICES[name]["build"] == {"context": ".", "target": OURS[name]}
        assert image == f"vqd-{OURS[name]}:${{VERSION:-local}}"
    else:
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+(-\w+)?", image)


@every_service
def test_nothing_may_more_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "pid", "ipc", "devices", "userns_mode"}
    assert service.get("network_mode", "none") == "none"
    assert str(service.get("user", "1")).split(":")[0] != "0"
    assert not any("docker.sock" in source for source in sources(service))


@every_service
def test_ports_are_published_on_loopback_only(name: str) -> None:
    assert all(port.startswith(LOOPBACK) for port in SERVICES[name].get("ports", []))


def test_the_gateway_asks_for_keys_and_publishes_no_metrics() -> None:
    environment = SERVICES["gateway"]["environment"]
    assert "VQD_ALLOW_UNAUTHENTICATED" not in environment
    (published,) = SERVICES["gateway"]["ports"]
    assert published.endswith(f":{environment['VQD_PORT']}")
    (job,) = [job for job in load("prometheus.yml")["scrape_configs"] if job["job_name"] == "gateway"]
    assert job["static_configs"] == [{"targets": [f"gateway:{environment['VQD_METRICS_PORT']}"]}]


def test_only_the_gateway_reads_the_keys_and_only_their_maker_writes_them() -> None:
    folder = str(Path(SERVICES["gateway"]["environment"]["VQD_KEY_FILE"]).parent)
    mounts = {
        name: v for name, service in SERVICES.items() for v in service.get("volumes", []) if v.startswith("keys:")
    }
    assert mounts == {"keys": f"keys:{folder}", "gateway": f"keys:{folder}:ro"}
    assert folder in (ROOT / "Dockerfile").read_text(), "a new volume gets the owner that the folder has in the image"


def make_key(path: Path) -> str:
    """Run the command of the service ``keys`` for another path."""
    service = SERVICES["keys"]
    assert service["entrypoint"] == ["python", "-c"]
    (text,) = service["command"]
    code = text.replace(SERVICES["gateway"]["environment"]["VQD_KEY_FILE"], str(path))
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


def test_a_first_key_is_made_once_for_its_reader_alone_and_is_in_no_log(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    assert make_key(path) == ""
    first = path.read_text()
    (token,) = read_tokens(path)
    assert OURS_TOKEN.fullmatch(token)
    assert path.stat().st_mode & 0o077 == 0
    make_key(path)
    assert path.read_text() == first


@every_service
def test_volumes_are_declared_and_files_exist(name: str) -> None:
    for source in sources(SERVICES[name]):
        if source.startswith("."):
            assert (ROOT / source).exists(), source
        else:
            assert source in COMPOSE["volumes"]


@pytest.mark.parametrize(("name", "volume"), [("redis", "queue:/data"), ("prometheus", "prometheus:/prometheus")])
def test_what_must_outlive_a_container_is_in_a_volume(name: str, volume: str) -> None:
    """Accepted jobs, and what was measured: an image's own volume goes with its container."""
    assert volume in SERVICES[name]["volumes"]


@every_service
def test_the_start_order_waits_for_health(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        expected = "service_completed_successfully" if SERVICES[other]["restart"] == "no" else "service_healthy"
        assert how == {"condition": expected}


def test_models_are_written_by_export_alone() -> None:
    writers = [name for name, service in SERVICES.items() if "models:/models" in service.get("volumes", [])]
    assert writers == ["export"]


def test_who_reaches_whom() -> None:
    """Redis is for gateway and worker, Triton's gRPC for the worker; only what is published has a way out."""
    members = {
        network: {name for name, service in SERVICES.items() if network in service.get("networks", [])}
        for network in COMPOSE["networks"]
    }
    assert members == {
        "front": {"gateway", "grafana", "prometheus", "alertmanager"},
        "queue": {"gateway", "redis", "worker"},
        "models": {"triton", "worker"},
        "monitoring": {"gateway", "grafana", "prometheus", "alertmanager", "triton", "worker"},
    }
    assert [name for name, network in COMPOSE["networks"].items() if not network.get("internal")] == ["front"]


@every_service
def test_no_secret_is_written_down(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        if re.search("PASSWORD|SECRET|TOKEN|KEY", variable) and not variable.endswith("_FILE"):
            assert VARIABLE.fullmatch(str(value)), variable
        assert "@" not in str(value), variable


@pytest.mark.parametrize("name", ["gateway", "worker"])
def test_settings_are_known_and_valid_and_probed_where_they_listen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = SERVICES[name]["environment"] | GPU["services"].get(name, {}).get("environment", {})
    for variable, value in environment.items():
        assert variable.removeprefix("VQD_").lower() in Settings.model_fields
        monkeypatch.setenv(variable, value)
    settings = read_settings()
    port = settings.port if name == "gateway" else settings.worker_metrics_port
    assert health_command(SERVICES[name])[-1] == f"http://127.0.0.1:{port}/readyz"


def test_alertmanager_knows_every_severity_and_every_receiver() -> None:
    config = load("alertmanager.yml")
    severities = {rule["labels"]["severity"] for rule in rules("alert").values()}
    matched = {matcher.split("=")[1].strip('"') for route in config["route"]["routes"] for matcher in route["matchers"]}
    assert matched < severities, "the rest goes where the root route leads"
    told = {config["route"]["receiver"], *(route["receiver"] for route in config["route"]["routes"])}
    assert told == {receiver["name"] for receiver in config["receivers"]}
    (target,) = load("prometheus.yml")["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert SERVICES["alertmanager"]["ports"][0].endswith(target.replace("alertmanager", ""))


def test_a_stopping_worker_gets_the_time_it_may_take() -> None:
    assert int(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) > Settings().drain_s


def test_with_a_gpu_the_processors_units_do_not_choose_the_dtype() -> None:
    [usual, other] = [services["export"]["command"] for services in (COMPOSE["services"], GPU["services"])]
    assert "--dtype" not in usual
    assert [word for word in other if word not in usual] == ["--dtype", "bf16"]


def test_with_a_gpu_triton_gets_it_and_the_worker_overlaps_calls() -> None:
    assert GPU["services"].keys() == {"export", "triton", "worker"}
    (device,) = GPU["services"]["triton"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert GPU["services"]["worker"]["environment"] == {"VQD_CALLS_IN_FLIGHT": "2"}


def test_redis_takes_its_command_line_and_keeps_jobs(tmp_path: Path) -> None:
    """The options of the compose file, given to a real redis-server."""
    command = shlex.split(with_defaults(SERVICES["redis"]["command"]))
    assert command[0] == "redis-server"
    port, log = free_port(), tmp_path / "redis.log"
    process = spawn([find_redis_server(), *command[1:], "--port", str(port), "--dir", str(tmp_path)], log)
    try:
        with redis.Redis(port=port, decode_responses=True) as client:
            while not answers(client):
                assert process.poll() is None, log.read_text()
            config = client.config_get("*")
    finally:
        end(process)
    expected = {"appendonly": "yes", "appendfsync": "everysec", "save": "", "maxmemory-policy": "noeviction"}
    assert {name: config[name] for name in expected} == expected
    assert int(config["maxmemory"]) == 512 * 2**20


def answers(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def examples() -> dict[str, str]:
    """Variable → value of .env.example."""
    return dict(re.findall(r"^#(\w+)=(.*)$", EXAMPLE, flags=re.MULTILINE))


def test_env_example_has_every_setting_with_its_default() -> None:
    shown = {name: value for name, value in examples().items() if name.startswith("VQD_")}
    assert list(shown) == [f"VQD_{name.upper()}" for name in Settings.model_fields]


def test_env_example_shows_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = Settings()
    for name, value in examples().items():
        monkeypatch.setenv(name, value)
    assert read_settings() == defaults


def test_env_example_has_every_variable_of_the_compose_file() -> None:
    used = dict(VARIABLE.findall((ROOT / "docker-compose.yml").read_text()))
    assert used == {name: value for name, value in examples().items() if not name.startswith("VQD_")}


def test_env_example_explains_every_variable() -> None:
    lines = EXAMPLE.splitlines()
    for before, line in pairwise(lines):
        if re.match(r"#\w+=", line):
            assert before.startswith("# ") or re.match(r"#\w+_PORT=", before), line
