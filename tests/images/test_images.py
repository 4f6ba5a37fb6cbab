"""The images gateway and worker, built and run: `make test-images`."""

import io
import re
from pathlib import Path

import httpx
import pytest
from engine import Docker
from PIL import Image
from serving import FIGURES, ContainerService, until

from service.local.probe import probe
from service.local.redis import RedisServer
from service.sockets import free_port

SLIM_LIMIT_MB = 250
both = pytest.mark.parametrize("target", ["gateway", "worker"])


def test_a_picture_comes_through_the_containers_port(service: ContainerService) -> None:
    gateway, worker = service.containers["gateway"], service.containers["worker"]
    FIGURES["`gateway`: start to alive"] = (
        f"{until(lambda: probe(f'{service.url}/healthz') is None, 60, gateway):.1f} s"
    )
    FIGURES["`worker`: start to ready"] = (
        f"{until(lambda: probe(f'{service.worker_url}/readyz') is None, 60, worker):.1f} s"
    )
    ready_s = until(lambda: probe(f"{service.url}/readyz") is None, 60, worker)
    FIGURES["both: start to the gateway's /readyz"] = f"{ready_s:.1f} s"
    body = {"prompt": "red apple", "seed": 7}
    answer = httpx.post(f"{service.url}/generate", json=body, headers={"Accept": "image/png"}, timeout=90)
    assert answer.status_code == httpx.codes.OK, answer.text
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert (picture.format, picture.size) == ("PNG", (32, 32))
    assert "vqd_images_total 1.0" in httpx.get(f"{service.worker_url}/metrics").text


def test_containers_find_themselves_healthy_and_stop_when_told(service: ContainerService) -> None:
    for name, container in service.containers.items():
        until(lambda c=container: c.inspect(".State.Health.Status") == "healthy", 60, container)
        assert container.stop() == 0, f"{name}: {container.logs()}"


def test_neither_runs_as_root_nor_writes_its_root(service: ContainerService) -> None:
    for container in service.containers.values():
        assert int(container.execute("id", "-u").stdout) >= 10000
        assert "Read-only file system" in container.execute("touch", "/opt/vqd/x").stdout
        assert container.execute("touch", "/tmp/x").returncode == 0
        capabilities = container.execute("cat", "/proc/1/status").stdout
        assert re.search(r"CapEff:\s+0+\n", capabilities)


@both
def test_the_image_is_slim_and_holds_no_torch(docker: Docker, images: dict[str, str], target: str) -> None:
    image = images[target]
    listed = docker("run", "--rm", "--network=none", "--entrypoint=du", image, "-s", "--block-size=1000", "/opt/vqd")
    megabytes = int(listed.split()[0]) / 1000
    FIGURES[f"`{target}`: installed packages, `du` of /opt/vqd"] = f"{megabytes:.0f} MB"
    whole = int(docker("image", "inspect", "--format={{.Size}}", image)) / 1e6
    FIGURES[f"`{target}`: whole image, base included"] = f"{whole:.0f} MB"
    assert megabytes <= SLIM_LIMIT_MB
    inside = docker("run", "--rm", "--network=none", "--entrypoint=ls", image, "/opt/vqd/lib/python3.11/site-packages")
    assert {"fastapi", "grpc", "service"} <= set(inside.split())
    assert not {"torch", "pip", "pytriton", "transformers"} & set(inside.split())


@both
def test_a_wrong_setting_ends_the_container_with_one_line(docker: Docker, images: dict[str, str], target: str) -> None:
    done = docker.command("run", "--rm", "--network=none", "--env=VQD_PORT=eighty", images[target])
    assert done.returncode == 1
    assert re.fullmatch(r"vqd: VQD_PORT='eighty': .*\n", done.stdout)


def test_a_gateway_serves_nobody_until_there_is_a_key(docker: Docker, images: dict[str, str], tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}"
    with (
        RedisServer(tmp_path / "redis") as redis,
        docker.start(images["gateway"], VQD_REDIS_URL=redis.url, VQD_PORT=port) as container,
    ):
        until(lambda: probe(f"{url}/healthz") is None, 60, container)
        assert httpx.get(f"{url}/v1/models").status_code == httpx.codes.UNAUTHORIZED
        assert "nobody is served until `vqd keys create`" in container.logs()
        token = re.search(r"vqd_\w+", container.execute("vqd", "keys", "create", "first").stdout)
        assert token
        assert httpx.get(f"{url}/v1/models", headers={"X-API-Key": token[0]}).status_code == httpx.codes.OK


def test_a_code_change_reinstalls_nothing(
    docker: Docker, images: dict[str, str], context: Path, build_arguments: dict[str, str]
) -> None:
    def layers() -> list[str]:
        return docker("image", "inspect", "--format={{range .RootFS.Layers}}{{.}} {{end}}", images["worker"]).split()

    before = layers()
    with (context / "service/worker/main.py").open("a") as code:
        code.write("# changed\n")
    _, seconds = docker.build("worker", context, **build_arguments)
    FIGURES["building `worker` after a change of code"] = f"{seconds:.0f} s"
    assert [old == new for old, new in zip(before, layers(), strict=True)] == [True] * (len(before) - 1) + [False]
