"""The real tritonserver with tiny TorchScript models: the fake agrees with it, and no process outlives its owner."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from triton_modules import SHAPES, tiny_info, tiny_modules

from service.condition import Condition
from service.errors import InferenceFailed, SetupError, TritonUnavailable
from service.export.files import write_repository
from service.local.shared_memory import SHARED_MEMORY
from service.local.triton import TritonServer
from service.local.wheel import find_triton
from service.testing.fake_triton import FakeTriton
from service.triton.client import TritonClient
from service.triton.contract import StepBatch, diffusion_step
from service.triton.retries import with_retries

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton") / "repository"
    write_repository(tiny_modules(), tiny_info(), SHAPES, b"{}", folder)
    return folder


@pytest.fixture(scope="module")
def triton(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    with TritonServer(repository, tmp_path_factory.mktemp("triton-run")) as server:
        yield server


@pytest.fixture
def own_triton(repository: Path, tmp_path: Path) -> Iterator[TritonServer]:
    """A server that a test may kill."""
    with TritonServer(repository, tmp_path) as server:
        yield server


def batches() -> Iterator[StepBatch]:
    """Random rows: every reveal rule, k = 1 and 3, pinned codes, 1 to 4 rows."""
    random = np.random.default_rng(11)
    for rows, k, reveal in [(1, 1, 3), (2, 1, -1), (4, 3, 2), (3, 3, -1)]:
        tokens = random.integers(0, SHAPES.codes + 1, (rows, SHAPES.tokens), np.int32)
        tokens[:, ::2] = SHAPES.codes
        steps = np.sort(random.integers(0, 99, (rows, k + 1), np.int32), axis=1)[:, ::-1]
        sample = StepBatch(**diffusion_step(Condition.TEXT).sample(SHAPES, rows))
        yield replace(
            sample,
            tokens=tokens,
            pinned=np.where(random.random(tokens.shape) < 0.1, 3, -1).astype(np.int32),
            timestep=np.ascontiguousarray(steps[:, :-1]),
            timestep_next=np.ascontiguousarray(steps[:, 1:]),
            reveal=np.full((rows, k), reveal, np.int32),
            **planned(rows, k),
            uniforms=random.random((rows, k, SHAPES.tokens, 2), dtype=np.float32),
        )


def planned(rows: int, k: int) -> dict[str, np.ndarray]:
    """The contract's sample of what a plan says, for ``k`` evaluations."""
    inputs = diffusion_step(Condition.TEXT).inputs
    names = ("timestep", "timestep_next", "reveal", "uniforms")
    wanted = [tensor for tensor in inputs if tensor.dims[0] == "k" and tensor.name not in names]
    return {tensor.name: tensor.sample_array(SHAPES, rows).repeat(k, axis=1) for tensor in wanted}


async def transcript(client: TritonClient) -> list[np.ndarray]:
    """The answers to one fixed set of questions."""
    answers: list[np.ndarray] = []
    ids = np.arange(15, dtype=np.int32).reshape(3, 5)
    mask = np.ones_like(ids)
    mask[1] = 0
    answers.append(await client.encode(ids, mask))
    for batch in batches():
        output = await client.step(batch)
        answers += [output.tokens, output.purity]
    image = await client.decode(np.arange(24, dtype=np.int32).reshape(2, 12) % SHAPES.codes)
    answers += [image, await client.encode_image(image)]
    return answers


async def test_the_fake_agrees_with_the_real_server(triton: TritonServer) -> None:
    async with FakeTriton(SHAPES) as fake:
        real_client, fake_client = TritonClient(triton.grpc_url), TritonClient(fake.url)
        assert await real_client.shapes() == await fake_client.shapes() == SHAPES
        real, faked = await transcript(real_client), await transcript(fake_client)
        await real_client.close()
        await fake_client.close()
    assert len(real) == 11
    for ours, theirs in zip(faked, real, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


async def test_a_step_of_one_evaluation_is_called_for_each(triton: TritonServer, tmp_path: Path) -> None:
    """As a step of ONNX or TensorRT: Triton refuses more, and the client's answers are those of the other step."""
    shapes = replace(SHAPES, evaluations=1)
    write_repository(tiny_modules(), tiny_info(), shapes, b"{}", tmp_path / "repository")
    with TritonServer(tmp_path / "repository", tmp_path / "run") as server:
        async with FakeTriton(shapes) as fake:
            clients = [TritonClient(url) for url in (triton.grpc_url, server.grpc_url, fake.url)]
            several, one, faked = [await transcript(client) for client in clients]
            for client in clients[1:]:
                assert (await client.shapes()).evaluations == 1
                with pytest.raises(InferenceFailed):
                    await client.step_call(list(batches())[2], shapes, None)
            for client in clients:
                await client.close()
    for answers in zip(several, one, faked, strict=True):
        np.testing.assert_array_equal(*answers[:2])
        np.testing.assert_array_equal(*answers[1:])


async def test_both_refuse_the_same_calls(triton: TritonServer) -> None:
    async with FakeTriton(SHAPES) as fake:
        for url in (triton.grpc_url, fake.url):
            client = TritonClient(url)
            with pytest.raises(InferenceFailed):
                await client.decode(np.zeros((SHAPES.max_batch_size + 1, SHAPES.tokens), np.int32))
            with pytest.raises(InferenceFailed):
                await client.decode(np.zeros((1, SHAPES.tokens - 1), np.int32))
            await client.check()
            await client.close()


async def test_an_error_inside_the_model_fails_only_its_call(triton: TritonServer) -> None:
    client = TritonClient(triton.grpc_url)
    batch = StepBatch(**diffusion_step(Condition.TEXT).sample(SHAPES))
    two = np.zeros((1, 2), np.int32)
    with pytest.raises(InferenceFailed, match="Error"):
        await client.step(replace(batch, reveal=two[:, :0], uniforms=np.zeros((1, 2, 12, 2), np.float32)))
    await client.check()
    await client.close()


async def test_abandoned_calls_leave_the_server_alive(triton: TritonServer) -> None:
    """Triton 2.51 dies of cancelled calls; callers of ours come and go."""
    client = TritonClient(triton.grpc_url)
    batch = StepBatch(**diffusion_step(Condition.TEXT).sample(SHAPES, SHAPES.max_batch_size))
    await client.shapes()
    for _ in range(20):
        callers = [asyncio.create_task(client.step(batch)) for _ in range(4)]
        await asyncio.sleep(0)
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
    await client.check()
    await client.close()
    assert triton.process.poll() is None


def listeners(port: int) -> set[str]:
    """Addresses that something listens on at ``port``, as the kernel writes them."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    return {line[1].split(":")[0] for line in lines if line[1].endswith(f":{port:04X}") and line[3] == "0A"}


def test_only_loopback_is_bound(triton: TritonServer) -> None:
    with urlopen(triton.metrics_url) as answer:
        assert "nv_inference_request_success" in answer.read().decode()
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}
    for port in (triton.grpc_port, triton.metrics_port):
        assert listeners(port)
        assert listeners(port) <= loopback


def stubs(server: TritonServer) -> list[int]:
    """The python stubs of the server, whichever of its threads started them."""
    tasks = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], bool], limit_s: float) -> bool:
    until = time.monotonic() + limit_s
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


async def test_a_servers_life(triton: TritonServer, own_triton: TritonServer) -> None:
    """Two servers on one machine; one loses its stubs, is killed, comes back on its port, and is stopped."""
    client = TritonClient(own_triton.grpc_url, timeout_s=10)
    neighbour = TritonClient(triton.grpc_url, timeout_s=10)
    await client.check()
    found = stubs(own_triton)
    assert len(found) == 4

    for pid in found:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(TritonUnavailable):
        await client.check()

    own_triton.process.kill()
    own_triton.process.wait()
    with pytest.raises(TritonUnavailable):
        await client.check()
    own_triton.start()
    await with_retries(client.check, attempts=5)
    await client.close()

    found = stubs(own_triton)
    assert list(SHARED_MEMORY.glob(f"{own_triton.shared_memory}*"))
    own_triton.stop()
    assert wait_for(lambda: not any(alive(pid) for pid in found), limit_s=10)
    assert not list(SHARED_MEMORY.glob(f"{own_triton.shared_memory}*"))
    await neighbour.check()
    await neighbour.close()


OWNER = """
import asyncio, sys
from pathlib import Path
from service.triton.client import TritonClient
from service.local.triton import TritonServer
server = TritonServer(Path(sys.argv[1]), Path(sys.argv[2]))
server.start()
print(server.process.pid, flush=True)
client = TritonClient(server.grpc_url)

async def keep_busy():
    while True:
        await asyncio.gather(*(client.check() for _ in range(8)))

asyncio.run(keep_busy())
"""


def test_nothing_outlives_a_killed_owner(repository: Path, tmp_path: Path) -> None:
    """Even a Triton that hangs with calls under way."""
    command = [sys.executable, "-c", OWNER, str(repository), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout
            pid = int(owner.stdout.readline())
            tasks = Path(f"/proc/{pid}/task").glob("*/children")
            family = [pid, *(int(child) for task in tasks for child in task.read_text().split())]
            assert len(family) == 5
            assert owner.poll() is None
            os.kill(pid, signal.SIGSTOP)
        finally:
            owner.kill()
    assert wait_for(lambda: not any(alive(process) for process in family), limit_s=15)


def test_a_repository_without_a_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="holds no exported model"):
        TritonServer(tmp_path, tmp_path / "run").start()


def test_a_broken_model_shows_the_log(repository: Path, tmp_path: Path) -> None:
    broken = tmp_path / "repository"
    for path in repository.rglob("*"):
        if path.is_file():
            target = broken / path.relative_to(repository)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(b"no TorchScript" if path.match("image_decoder/1/model.pt") else path.read_bytes())
    with pytest.raises(SetupError, match=r"image_decoder: .*not a ZIP archive(.|\n)*triton\.log"):
        TritonServer(broken, tmp_path / "run").start()


def test_a_missing_wheel_is_said_in_plain_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[2])])
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if "editable" not in str(finder).lower()])
    monkeypatch.delitem(sys.modules, "pytriton", raising=False)
    with pytest.raises(SetupError, match=r"'pytriton' is not installed: `pip install 'vqd\[local\]'`"):
        find_triton()
