"""The gateway's /metrics on a port of its own: real processes, a real Redis."""

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from commands import complaint, vqd
from fleet import Fleet, serving
from gateway_harness import until

from service.local.processes import spawn
from service.sockets import free_port

DOOMED = """
from service.gateway import scraped
from service.settings import read_settings
from service.telemetry.port import SideServer

class Doomed(SideServer):
    async def on_tick(self, counter):
        raise RuntimeError("as told")

scraped.SideServer = Doomed
from service.gateway.app import run
run(read_settings())
"""


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Iterator[Fleet]:
    started = Fleet(redis_url, tmp_path, metrics_port=free_port())
    yield started
    started.close()


@pytest.fixture
def scrapes(fleet: Fleet) -> str:
    return f"http://127.0.0.1:{fleet.environment['VQD_METRICS_PORT']}"


def test_it_has_the_metrics_and_nothing_else(fleet: Fleet, scrapes: str) -> None:
    with serving(fleet, "/healthz") as client:
        client.get("/jobs/a")
        both = [httpx.get(f"{scrapes}/metrics").text, client.get("/metrics").text]
        for text in both:
            assert '\nvqd_http_requests_total{method="GET",route="/jobs/{job_id}",status="404"} 1.0\n' in text
            assert "\nvqd_redis_up 1.0\n" in text
        assert [httpx.get(scrapes + path).status_code for path in ("/", "/jobs/a", "/openapi.json")] == [404] * 3
        assert httpx.get(f"{scrapes}/metrics", headers={"Host": "rebind.evil.example"}).status_code == 400


def test_it_ends_with_the_gateway(fleet: Fleet, scrapes: str) -> None:
    with serving(fleet, "/healthz"), httpx.Client() as kept_alive:
        assert kept_alive.get(f"{scrapes}/metrics").status_code == 200
        (process,) = fleet.others
        process.terminate()
        assert process.wait(15) == 0
    lines = fleet.log_lines("gateway")
    assert [line for line in lines if line["level"] not in ("DEBUG", "INFO")] == []


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = complaint(vqd("gateway", cwd=tmp_path, VQD_PORT="0", VQD_METRICS_PORT=port))
    assert said.startswith(f"vqd: VQD_METRICS_PORT={port}, VQD_HOST=127.0.0.1: cannot listen there")


def test_a_fault_there_ends_the_process_loudly(fleet: Fleet, tmp_path: Path) -> None:
    log = tmp_path / "doomed.log"
    process = spawn([sys.executable, "-c", DOOMED], log, fleet.environment | {"VQD_PORT": str(free_port())})
    until(lambda: process.poll() is not None, limit_s=30)
    last_words = json.loads(log.read_text().splitlines()[-1])
    assert (process.returncode, last_words["message"]) == (1, "died of RuntimeError")
    assert "background task metrics port died" in log.read_text()


def test_all_pages_with_no_key_do_not_start(tmp_path: Path) -> None:
    assert "VQD_CORS_ORIGINS=*: without API keys" in complaint(vqd("gateway", cwd=tmp_path, VQD_CORS_ORIGINS="*"))
