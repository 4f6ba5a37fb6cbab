"""Real worker processes on a real Redis and the shipped fake of Triton, for the tests of reliability.md's promises."""

import json
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
from both_sides import JobQueue
from gateway_harness import DEFAULTS, MODEL, Background, until
from tokenizers import Tokenizer, models, pre_tokenizers

from service.diffusion.samplers import effort_of
from service.local.probe import probe
from service.local.processes import end, spawn
from service.messages import Job, JobView, Priority, Status
from service.queue.account import ANYBODY
from service.settings import Settings
from service.sockets import free_port
from service.testing.fake_triton import FakeTriton
from service.triton.contract import Shapes

T = TypeVar("T")
HEALTH_CHECK_NOISE = 0.5
WORDS = ("[PAD]", *"abcd", "red", "circle", "secret", "zebra", "one", "two", "three", "four", "five", "?")
"""All that the model knows, by token; the last stands for everything else."""
SHAPES = Shapes(
    tokens=MODEL.tokens,
    text_positions=MODEL.text_positions,
    text_width=8,
    codes=MODEL.codes,
    image_height=MODEL.image_height,
    image_width=MODEL.image_width,
)


def write_repository(folder: Path) -> None:
    """The two files that a worker reads."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_padding(length=MODEL.text_positions)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vqd.json").write_text(MODEL.model_dump_json())
    (folder / "tokenizer.json").write_text(tokenizer.to_str())


class Fleet:
    """Workers as processes, a queue to talk to them, and a Triton that counts what it is asked."""

    def __init__(self, redis_url: str, folder: Path, **environment: object) -> None:
        self.folder, self.started = folder, 0
        write_repository(folder / "repository")
        self.background = Background()
        self.triton: FakeTriton = self.background.call(start_fake())
        # One evaluation per call and quick reports, so that tests can aim at single steps.
        options = {"lease_ms": 1000, "scan_ms": 200, "checkpoint_ms": 200, "call_target_ms": 1, **environment}
        self.environment = {f"VQD_{name.upper()}": str(value) for name, value in options.items()} | {
            "VQD_REDIS_URL": redis_url,
            "VQD_TRITON_URL": self.triton.url,
            "VQD_REPOSITORY": str(folder / "repository"),
        }
        # Patient: a busy machine is no fault of Redis.
        self.settings = Settings(redis_url=redis_url, redis_timeout_s=5.0, lease_ms=int(str(options["lease_ms"])))
        self.queue = JobQueue.connect(self.settings)
        self.account = ANYBODY
        """Whose the next submitted jobs are."""
        self.workers: list[subprocess.Popen[bytes]] = []
        self.others: list[subprocess.Popen[bytes]] = []

    def ask(self, work: Callable[[JobQueue], Awaitable[T]]) -> T:
        """Run a queue operation on the fleet's event loop."""

        async def run() -> T:
            return await work(self.queue)

        answer: T = self.background.call(run())
        return answer

    def start_worker(
        self, ready: bool = True, module: tuple[str, ...] = ("service.cli", "worker")
    ) -> subprocess.Popen[bytes]:
        """Another worker process; by default waits until it has registered as ready."""
        self.started += 1
        log = self.folder / f"worker-{self.started}.log"
        process = spawn([sys.executable, "-m", *module], log, self.environment)
        self.workers.append(process)
        if ready:
            until(lambda: self.ready(process.pid) or process.poll() is not None, limit_s=60)
            assert process.poll() is None, self.logs()
        return process

    def start_gateway(self, port: int) -> subprocess.Popen[bytes]:
        environment = self.environment | {"VQD_PORT": str(port)}
        command = [sys.executable, "-m", "service.cli", "gateway"]
        self.others.append(spawn(command, self.folder / "gateway.log", environment))
        return self.others[-1]

    def ready(self, pid: int) -> bool:
        infos = self.ask(lambda queue: queue.workers())
        return any(f"-{pid}-" in info.id and info.state == "ready" for info in infos)

    def submit(
        self,
        seed: int = 0,
        steps: int = 8,
        priority: Priority = Priority.INTERACTIVE,
        job_id: str = "",
        n: int = 1,
        deadline_ms: int | None = None,
        prompt: str = "a red circle",
        **parameters_changed: object,
    ) -> str:
        parameters = DEFAULTS.model_copy(update={"seed": seed, "steps": steps, "n": n, **parameters_changed})
        identity = job_id or f"job-{seed}-{steps}"
        job = Job(
            id=identity,
            model=MODEL.name,
            prompt=prompt,
            negative_prompt=None,
            parameters=parameters,
            priority=priority,
            deadline_ms=deadline_ms,
        )
        return self.enqueue(job)

    def enqueue(self, job: Job) -> str:
        evaluations, passes = effort_of(job.parameters, MODEL.tokens, MODEL.timesteps)
        return self.ask(lambda queue: queue.enqueue(job, evaluations, None, self.account, passes)).job_id

    def view(self, job_id: str) -> JobView:
        return self.ask(lambda queue: queue.view(job_id))

    def wait(self, job_id: str, *statuses: Status, limit_s: float = 30.0) -> JobView:
        """The job once it is in one of ``statuses``; by default once it has succeeded."""
        wanted = statuses or (Status.SUCCEEDED,)
        until(lambda: self.view(job_id).status in wanted, limit_s)
        return self.view(job_id)

    def wait_evaluation(self, job_id: str, evaluation: int) -> None:
        until(lambda: self.view(job_id).evaluation >= evaluation)

    def evaluations_run(self) -> int:
        """Evaluations of jobs that Triton was asked for, over all rows and calls; health checks do not count."""
        return sum(
            int(call.inputs["timestep"].size)
            for call in self.triton.calls
            if call.model == "diffusion_step" and (call.inputs["uniforms"] != HEALTH_CHECK_NOISE).any()
        )

    def tokens(self, job_id: str) -> list[str]:
        result = self.view(job_id).result
        assert result is not None
        return [image.tokens_sha256 for image in result.images]

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("worker-*.log")))

    def log_lines(self, name: str) -> list[dict[str, Any]]:
        """The log of ``gateway`` or ``worker-1``, …; fails at a line that is no JSON object."""
        lines = [json.loads(line) for line in (self.folder / f"{name}.log").read_text().splitlines()]
        assert all(isinstance(line, dict) for line in lines)
        return lines

    def close(self) -> None:
        processes = [*self.others, *self.workers]
        for process in processes:  # all at once: each takes a while to drain
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in processes:
            end(process, grace_s=5)
        self.background.call(self.queue.close())
        self.background.call(self.triton.stop())


@contextmanager
def serving(fleet: Fleet, until_ok: str = "/readyz") -> Iterator[httpx.Client]:
    """A client of a gateway process, once it answers 200 at ``until_ok``."""
    port = free_port()
    fleet.start_gateway(port)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        until(lambda: probe(f"http://127.0.0.1:{port}{until_ok}") is None, limit_s=60)
        yield client


async def start_fake() -> FakeTriton:
    fake = FakeTriton(SHAPES)
    await fake.start()
    return fake


async def terminal_events(queue: JobQueue, job_id: str) -> int:
    return sum(event.status.terminal for _, event in await queue.events(job_id))


async def delivery_counts(queue: JobQueue, stream: str) -> list[int]:
    pending: Any = await queue.redis.xpending_range(stream, "workers", "-", "+", 100)
    return [int(entry["times_delivered"]) for entry in pending]


def gather(fleet: Fleet, job_ids: list[str], read: Callable[[JobQueue, str], Awaitable[T]]) -> list[T]:
    """``read`` of every job, in one go."""

    async def run(queue: JobQueue) -> list[T]:
        return [await read(queue, job_id) for job_id in job_ids]

    return fleet.ask(run)
