"""No prompt, key or password in any line that gateway and worker log at DEBUG, whatever happens to a request."""

import contextlib
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis
from fleet import Fleet, serving
from gateway_harness import until

from service.local.processes import spawn
from service.local.redis import RedisServer
from service.messages import Status
from service.sockets import free_port
from service.testing.fake_triton import Call, nan_purity

PROMPT, NEGATIVE, KEY, IDEMPOTENCY, PASSWORD = (f"marked-{what}-zq9w" for what in ("p", "n", "k", "i", "w"))
MARK = "zq9w"
FLAWED = 7.5
"""The guidance scale of the job that Triton answers with nonsense."""
SENT = {"prompt": f"zebra {PROMPT}", "negative_prompt": f"red {NEGATIVE}"}
HEADERS = {"Authorization": f"Bearer {KEY}", "X-API-Key": KEY, "Cookie": f"session={KEY}"}
JSON = {"Content-Type": "application/json"}
BUGGY = """
from service.gateway import validation
from service.gateway.app import run
from service.gateway.schemas import GenerateRequest
from service.queue.submissions import Submissions
from service.settings import read_settings

async def broken_ranges(gateway):
    raise RuntimeError("a bug while a wrong field is described")

async def broken_enqueue(self, job, *more, **others):
    GenerateRequest.model_validate({"prompt": "a", "seed": job.prompt})

validation.served_ranges, Submissions.enqueue = broken_ranges, broken_enqueue
run(read_settings())
"""


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """One that wants a password."""
    with RedisServer(tmp_path / "redis") as server:
        set_password(server)
        yield server
        if server.process and server.process.poll() is None:
            with redis.Redis.from_url(with_password(server)) as client:
                client.config_set("requirepass", "")


def set_password(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.config_set("requirepass", PASSWORD)


def with_password(server: RedisServer) -> str:
    return server.url.replace("redis://", f"redis://:{PASSWORD}@")


@pytest.fixture
def fleet(own_redis: RedisServer, tmp_path: Path) -> Iterator[Fleet]:
    started = Fleet(with_password(own_redis), tmp_path, log_level="DEBUG")
    started.start_worker()
    yield started
    started.close()


def found(folder: Path) -> list[str]:
    """The lines of all logs that hold what must not be there."""
    lines = [line for path in sorted(folder.glob("**/*.log")) for line in path.read_text(errors="replace").splitlines()]
    assert any('"level": "DEBUG"' in line for line in lines)
    return [line for line in lines if MARK in line]


def flawed_step(call: Call) -> bool:
    return call.model == "diffusion_step" and bool((call.inputs["weights"][..., 0] == FLAWED).any())


def ask(http: httpx.Client, **changed: object) -> httpx.Response:
    return http.post("/generate?api_key=" + KEY, json=SENT | changed, headers=HEADERS)


def send_bad_bodies(http: httpx.Client) -> list[int]:
    bodies = [
        f'{{"prompt": "{PROMPT}',  # no JSON
        f'["{PROMPT}"]',
        f'{{"{PROMPT}": 1}}',
        f'{{"prompt": "{PROMPT}", "prompt": "{PROMPT}"}}',
        f'{{"prompt": "{PROMPT}\\ud800"}}',
        f'{{"prompt": ["{PROMPT}"]}}',
        f'{{"prompt": "a", "seed": "{PROMPT}"}}',
        f'{{"prompt": "{PROMPT * 200}"}}',
        f'{{"prompt": "{PROMPT}", "model": "{PROMPT}"}}',
        f'{{"prompt": "{PROMPT}{" " * 70000}"}}',
    ]
    answers = [http.post("/generate", content=body, headers=JSON | HEADERS) for body in bodies]
    answers += [
        http.post("/generate", content=PROMPT, headers={"Content-Type": f"text/{PROMPT}"}),
        http.post("/generate", json=SENT, headers={"Idempotency-Key": f"{IDEMPOTENCY} with spaces"}),
        http.post("/generate", json=SENT, headers={"Accept": f"image/{PROMPT}"}),
        http.post("/generate", json=SENT, headers={"Prefer": f"wait={PROMPT}", "Host": f"{KEY}.example"}),
        http.post("/generate", json=SENT, headers={"Origin": f"http://{KEY}.example"}),
    ]
    return [answer.status_code for answer in answers]


def hang_up_in_the_middle(port: int) -> None:
    head = f"POST /generate HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Length: 99\r\n\r\n"
    for said in (f"{head}{PROMPT}", f"{KEY} no HTTP\r\n\r\n", f"GET / HTTP/1.1\r\nX-API-Key {KEY}\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(said.encode())
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(15)
            with contextlib.suppress(OSError):
                while connection.recv(4096):
                    pass


def test_what_is_asked_and_by_whom_is_in_no_log(fleet: Fleet, own_redis: RedisServer, tmp_path: Path) -> None:
    with serving(fleet) as http:
        once = [http.post("/generate", json=SENT, headers=HEADERS | {"Idempotency-Key": IDEMPOTENCY}) for _ in range(2)]
        assert [answer.status_code for answer in once] == [200, 200]
        assert {status // 100 for status in send_bad_bodies(http)} == {4}
        assert ask(http, prompt=f"zebra {PROMPT} " * 17).status_code == 422  # found by the worker
        hang_up_in_the_middle(http.base_url.port or 0)

        fleet.triton.fail_when(flawed_step, nan_purity)
        assert ask(http, guidance_scale=FLAWED).status_code == 500
        fleet.background.loop.call_soon_threadsafe(fleet.triton.hang)
        job_id = http.post("/generate", json=SENT, headers=HEADERS | {"Prefer": "respond-async"}).json()["id"]
        fleet.workers[0].send_signal(signal.SIGTERM)  # hands over with a prompt in its hands
        assert fleet.workers[0].wait(30) == 0
        fleet.background.loop.call_soon_threadsafe(fleet.triton.resume)
        fleet.start_worker()
        fleet.wait(job_id, Status.SUCCEEDED)

        own_redis.stop()
        assert ask(http).status_code == 503
        own_redis.start()
        assert ask(http).status_code == 503  # it has lost its password, and refuses ours
        set_password(own_redis)
        until(lambda: http.get("/readyz").status_code == 200, limit_s=30)
    assert found(tmp_path) == []


def test_not_even_by_a_bug(fleet: Fleet, tmp_path: Path) -> None:
    """Errors of pydantic and of FastAPI quote what they were given."""
    port = free_port()
    log = tmp_path / "buggy.log"
    fleet.others.append(spawn([sys.executable, "-c", BUGGY], log, fleet.environment | {"VQD_PORT": str(port)}))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
        until(lambda: answers(http), limit_s=30)
        assert (ask(http).status_code, ask(http, n=PROMPT).status_code) == (500, 500)
    said = log.read_text()
    assert said.count("met a bug") == 2
    assert "1 validation error for GenerateRequest" in said
    assert "a bug while a wrong field is described" in said
    assert found(tmp_path) == []


def answers(http: httpx.Client) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return http.get("/readyz").status_code == 200
    return False


def test_nor_in_the_name_of_a_process(fleet: Fleet) -> None:
    """Every user of a machine sees the command lines of all."""
    with serving(fleet):
        for process in (*fleet.workers, *fleet.others):
            assert MARK not in Path(f"/proc/{process.pid}/cmdline").read_text()
