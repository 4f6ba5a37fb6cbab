"""A Docker engine to test with: the one that runs here, or one of our own that is gone afterwards."""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Self

from service.errors import SetupError
from service.local.processes import LocalServer, end, spawn

# What `vqd` containers get in docker-compose.yml and Kubernetes as well.
RESTRICTED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")


def run(*command: str | Path, timeout_s: float = 600, **environment: str) -> subprocess.CompletedProcess[str]:
    """Output and errors in one text."""
    return subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def install(*packages: str) -> None:
    """Debian packages. Raises SetupError when it cannot be done."""
    for command in (("apt-get", "update", "-qq"), ("apt-get", "install", "-qq", "--no-install-recommends", *packages)):
        done = run(*command, DEBIAN_FRONTEND="noninteractive")
        if done.returncode:
            raise SetupError(f"{' '.join(command)}: {done.stdout[-500:]}")


class Engine(LocalServer):
    """A dockerd of our own, without a bridge: everything uses this machine's network. Its state is in ``folder``."""

    name, limit_s = "dockerd", 60.0

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "dockerd.log"
        self.client = Docker(f"unix://{folder}/docker.sock")

    def launch(self) -> None:
        if not shutil.which("dockerd"):
            install("docker.io")
        options = {
            "host": self.client.host,
            "data-root": self.folder / "data",
            "exec-root": self.folder / "exec",
            "pidfile": self.folder / "docker.pid",
            "bridge": "none",
            "iptables": "false",
        }
        command = ["dockerd", *(f"--{name}={value}" for name, value in options.items())]
        self.process = spawn(command, self.log)

    def answers(self) -> bool:
        return self.client.answers()

    def stop(self) -> None:
        end(self.process, grace_s=30)
        run("umount", self.folder / "exec/netns/default")  # dockerd leaves it behind
        shutil.rmtree(self.folder, ignore_errors=True)


class Docker:
    """The docker client; ``host`` "" is what it uses by itself."""

    def __init__(self, host: str = "") -> None:
        self.host = host

    def command(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        where = ["--host", self.host] if self.host else []
        return run("docker", *where, *arguments)

    def __call__(self, *arguments: str | Path) -> str:
        """What it prints. Raises SetupError with the end of that when it fails."""
        done = self.command(*arguments)
        if done.returncode:
            raise SetupError(f"docker {' '.join(map(str, arguments))}: …{done.stdout[-3000:]}")
        return done.stdout.strip()

    def answers(self) -> bool:
        return bool(shutil.which("docker")) and self.command("version").returncode == 0

    def build(self, target: str, context: Path, **build_arguments: str) -> tuple[str, float]:
        """(image, seconds)"""
        image, began = f"vqd-{target}:test", time.monotonic()
        options = [f"--build-arg={name}={value}" for name, value in build_arguments.items()]
        self("build", "--network=host", f"--target={target}", f"--tag={image}", *options, context)
        return image, time.monotonic() - began

    def start(self, image: str, **environment: object) -> "Container":
        variables = [f"--env={name}={value}" for name, value in environment.items()]
        repository = environment.get("VQD_REPOSITORY")
        volumes = [f"--volume={repository}:{repository}:ro"] if repository else []
        began = time.monotonic()
        name = self("run", "--detach", "--network=host", *RESTRICTED, *variables, *volumes, image)
        return Container(self, name, began)


class Container:
    """A context manager: removed outside."""

    def __init__(self, docker: Docker, name: str, began: float) -> None:
        self.docker, self.name, self.began = docker, name, began

    def inspect(self, template: str) -> str:
        return self.docker("inspect", f"--format={{{{{template}}}}}", self.name)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        return self.docker.command("exec", self.name, *command)

    def logs(self) -> str:
        return self.docker("logs", self.name)

    def stop(self) -> int:
        """SIGTERM and ten seconds, as Docker does it; the exit status."""
        self.docker("stop", self.name)
        return int(self.inspect(".State.ExitCode"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.docker("rm", "--force", self.name)
