"""A real S3 server that checks signatures, ``rclone serve s3`` (it comes in a wheel), and a service that uses it."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import obstore
import redis
from fleet import Fleet, serving
from obstore.store import S3Store

from service.local.processes import LocalServer, end, spawn
from service.queue import keys
from service.settings import Settings
from service.sockets import free_port

BUCKET, KEY, SECRET = "pictures", "vqd-key", "marked-5e1f-secret"
LEASE_MS = 1000
RCLONE = Path(sys.executable).parent / "rclone"
"""Of the wheel, whether or not the environment is active."""


class S3Server(LocalServer):
    """With one bucket, in a folder that outlives it."""

    name, limit_s = "rclone", 20.0

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.log = folder / "s3", free_port(), folder / "s3.log"
        self.secret = SECRET
        (self.folder / BUCKET).mkdir(parents=True)

    def launch(self) -> None:
        command = [str(RCLONE), "serve", "s3", "--config=", f"--addr=127.0.0.1:{self.port}"]
        command += [f"--auth-key={KEY},{self.secret}", "--vfs-write-wait=0", str(self.folder)]
        self.process = spawn(command, self.log)

    def answers(self) -> bool:
        try:
            obstore.head(self.store(), "nothing")
        except FileNotFoundError:
            return True
        except obstore.exceptions.BaseError:
            return False
        return True

    def stop(self) -> None:
        end(self.process)

    def store(self) -> S3Store:
        return S3Store(
            BUCKET,
            endpoint=self.endpoint(),
            access_key_id=KEY,
            secret_access_key=self.secret,
            client_options={"allow_http": True, "timeout": "5s"},
            retry_config={"max_retries": 0},
        )

    def endpoint(self, port: int = 0) -> str:
        return f"http://127.0.0.1:{port or self.port}"

    def objects(self) -> list[str]:
        """The names of all, but for the one by which a worker sees that it may write."""
        files = [path for path in (self.folder / BUCKET).rglob("*") if path.is_file()]
        return sorted(str(path.relative_to(self.folder / BUCKET)) for path in files if path.name != "vqd-probe")

    def read(self, name: str) -> tuple[bytes, dict[str, str]]:
        found = obstore.get(self.store(), name)
        return bytes(found.bytes()), {str(key): value for key, value in found.attributes.items()}

    def environment(self, port: int = 0, **changed: str) -> dict[str, str]:
        """What a process is told that is to use it, at another port if there is a line in between."""
        told = {"VQD_S3_BUCKET": BUCKET, "VQD_S3_PREFIX": "vqd/a", "VQD_S3_ENDPOINT": self.endpoint(port)}
        return told | {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET} | changed

    def settings(self, **changed: Any) -> Settings:
        """The same for this process, whose environment must have the credentials."""
        given = {"s3_bucket": BUCKET, "s3_prefix": "vqd/a", "s3_endpoint": self.endpoint()}
        return Settings(**given | changed)


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    with S3Server(folder) as server:
        yield server


class Service:
    """A gateway, workers, and where the pictures go."""

    def __init__(self, redis_url: str, folder: Path, stack: ExitStack, **environment: object) -> None:
        self.redis = stack.enter_context(redis.Redis.from_url(redis_url))
        self.s3 = stack.enter_context(s3_server(folder))
        self.fleet = Fleet(redis_url, folder, lease_ms=LEASE_MS, **environment)
        stack.callback(self.fleet.close)
        self.fleet.environment |= self.s3.environment()

    def serve(self, stack: ExitStack, worker: bool = True) -> None:
        if worker:
            self.fleet.start_worker()
        self.http = stack.enter_context(serving(self.fleet))

    def ask(self, headers: dict[str, str] | None = None, **fields: object) -> dict[str, Any]:
        """POST /generate → the answer with the pictures in it."""
        asked = {"prompt": "a red circle", "steps": 4} | fields
        response = self.http.post("/generate", json=asked, headers=headers)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def image(self, job: str, index: int = 0, **headers: str) -> httpx.Response:
        return self.http.get(f"/jobs/{job}/images/{index}", headers=headers)

    def in_redis(self, job: str) -> int:
        """How many of its pictures are there."""
        return int(self.redis.hlen(keys.images(job)))  # type: ignore[arg-type]

    def metric(self, name: str) -> float:
        lines = self.http.get("/metrics").text.splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))

    def stored_keys(self, job: str) -> list[str]:
        result = self.fleet.view(job).result
        assert result is not None
        return [info.stored.key for info in result.images if info.stored]
