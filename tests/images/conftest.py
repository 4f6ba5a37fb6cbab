"""What the images' tests share: an engine, a base, the two images, and a service of containers."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import Docker, Engine
from serving import FIGURES, ContainerService
from stand_in import make_base

from service.export.build import ensure_exported
from service.local.redis import RedisServer
from service.local.triton import TritonServer
from service.models.card import REFERENCE
from service.sockets import free_port

ROOT = Path(__file__).parents[2]
CONTEXT = ("Dockerfile", ".dockerignore", "pyproject.toml", "constraints.txt", "README.md", "LICENSE", "NOTICE")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--own-bases", action="store_true", help="Pull the Dockerfile's bases instead of a stand-in.")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line("\n| what | measured |\n| --- | --- |")
    for what, value in FIGURES.items():
        terminalreporter.write_line(f"| {what} | {value} |")


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """Under /tmp, for a socket's path must be short; readable for the containers' user."""
    path = Path(tempfile.mkdtemp(prefix="vqd-images-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def docker(folder: Path) -> Iterator[Docker]:
    if (client := Docker()).answers():
        yield client
        return
    with Engine(folder / "engine") as engine:
        yield engine.client


@pytest.fixture(scope="session")
def build_arguments(docker: Docker, folder: Path, request: pytest.FixtureRequest) -> dict[str, str]:
    if request.config.getoption("--own-bases"):
        return {}
    (folder / "base").mkdir()
    return {"PYTHON_IMAGE": make_base(docker, folder / "base", ROOT / "outputs/images")}


@pytest.fixture(scope="session")
def context(folder: Path) -> Path:
    """A copy of what the images are made of, so that a test can change it."""
    path = folder / "context"
    shutil.copytree(ROOT / "service", path / "service", ignore=shutil.ignore_patterns("__pycache__"))
    for name in CONTEXT:
        shutil.copy(ROOT / name, path)
    return path


@pytest.fixture(scope="session")
def images(docker: Docker, context: Path, build_arguments: dict[str, str]) -> dict[str, str]:
    built: dict[str, str] = {}
    for target in ("gateway", "worker"):
        built[target], seconds = docker.build(target, context, **build_arguments)
        FIGURES[f"building `{target}`" + (" after it" if len(built) > 1 else " the first time")] = f"{seconds:.0f} s"
    return built


@pytest.fixture(scope="session")
def triton(folder: Path) -> Iterator[TritonServer]:
    repository = folder / "repository"
    ensure_exported(REFERENCE, repository)
    with TritonServer(repository, folder / "triton") as server:
        yield server


@pytest.fixture
def service(docker: Docker, images: dict[str, str], triton: TritonServer, tmp_path: Path) -> Iterator[ContainerService]:
    """Gateway and worker in containers, restricted as in production; Redis and Triton are this machine's."""
    port, worker_port = free_port(), free_port()
    subject = ContainerService(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{worker_port}")
    with RedisServer(tmp_path / "redis") as redis:
        shared = {"VQD_REDIS_URL": redis.url, "VQD_HOST": "127.0.0.1"}
        worker = docker.start(
            images["worker"],
            **shared,
            VQD_TRITON_URL=triton.grpc_url,
            VQD_REPOSITORY=triton.repository,
            VQD_WORKER_METRICS_PORT=worker_port,
        )
        with worker, docker.start(images["gateway"], **shared, VQD_PORT=port) as gateway:
            subject.containers = {"gateway": gateway, "worker": worker}
            yield subject
