"""The receiver that http-api.md shows, beside a real gateway."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    until,
)

from service.settings import Settings
from service.sockets import free_port

PAGE = Path(__file__).parents[2] / "docs/http-api.md"


@pytest.fixture
def gateway(settings: Settings) -> Iterator[RunningGateway]:
    secret = "whsec_" + "c2VjcmV0" * 4
    told = {"webhook_secret": secret, "webhook_hosts": "localhost", "webhook_http": True, "webhook_retry_s": 0.05}
    running = RunningGateway(settings.model_copy(update=told))
    yield running
    running.close()


def test_the_receiver_of_the_page_gets_what_it_can_verify(
    gateway: RunningGateway, settings: Settings, tmp_path: Path
) -> None:
    (text,) = re.findall(r"```python\n(import os\n.*?class Receiver.*?)```", PAGE.read_text(), re.DOTALL)
    port = free_port()
    (tmp_path / "receiver.py").write_text(text.replace("9000", str(port)))
    secret = gateway.http.get("/webhooks/secret").json()["secret"]
    command = [sys.executable, tmp_path / "receiver.py"]
    worker = TinyWorker(settings)
    with (tmp_path / "said").open("w") as said:
        receiver = subprocess.Popen(command, env=os.environ | {"SECRET": secret}, stdout=said, stderr=said)
    try:
        until(lambda: answers(port))
        job = gateway.start(webhook_url=f"http://localhost:{port}/")
        until(lambda: gateway.metric('vqd_webhooks_total{outcome="delivered"}') == 1)
    finally:
        receiver.kill()
        receiver.wait()
        worker.close()
    assert f"msg_{job} job.succeeded /jobs/{job}/images/0" in (tmp_path / "said").read_text()


def answers(port: int) -> bool:
    try:
        return httpx.post(f"http://127.0.0.1:{port}/", content=b"forged").status_code == 400
    except httpx.TransportError:
        return False
