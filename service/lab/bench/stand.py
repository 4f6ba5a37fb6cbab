"""A service without a model, to measure what is around the model: Redis, a gateway, and if need be a worker whose
Triton is the shipped fake. Everything on free ports of this machine, in processes of their own."""

import asyncio
import multiprocessing
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from tokenizers import Tokenizer, models, pre_tokenizers

from service.lab.bench.cases import PROMPTS
from service.lab.bench.live import memory_of
from service.local.parts import CommandPart
from service.local.probe import probe
from service.local.processes import Child, LocalServer
from service.local.redis import RedisServer
from service.messages import ImageFormat, Parameters, PurityForm
from service.serving import ModelInfo, Range
from service.settings import read_settings
from service.sockets import free_port
from service.testing.fake_triton import FakeTriton
from service.triton.contract import Shapes
from service.triton.repository import INFO_FILE, TOKENIZER_FILE

DEFAULTS = Parameters(
    guidance_scale=2.0,
    purity_r=1.0,
    purity_form=PurityForm.LINEAR,
    tokens_per_step=4,
    steps=16,
    sampler="purity",
    truncation_rate=1.0,
    temperature=1.0,
    final_resample=True,
    seed=0,
    n=1,
    format=ImageFormat.PNG,
)
MODEL = ModelInfo(
    name="fake",
    sha256="0" * 64,
    description="No network: the sizes of the bundled model, for measuring what is around it.",
    licence="Apache-2.0",
    attributions=(),
    tokens=64,
    codes=256,
    image_width=32,
    image_height=32,
    text_positions=24,
    timesteps=100,
    prompt_template="{prompt}",
    defaults=DEFAULTS,
    ranges={"guidance_scale": Range(minimum=0, maximum=20), "steps": Range(minimum=1, maximum=64)},
    samplers=("purity",),
)
SHAPES = Shapes(
    tokens=MODEL.tokens,
    text_positions=MODEL.text_positions,
    text_width=384,
    codes=MODEL.codes,
    image_height=MODEL.image_height,
    image_width=MODEL.image_width,
)


def write_repository(folder: Path) -> None:
    """The two files that a worker reads."""
    words = ["[PAD]", *sorted({word for prompt in PROMPTS for word in prompt.split()}), "?"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_padding(length=MODEL.text_positions)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INFO_FILE).write_text(MODEL.model_dump_json())
    (folder / TOKENIZER_FILE).write_text(tokenizer.to_str())


async def serve_fake(port: int) -> None:
    await FakeTriton(SHAPES, port).start()
    await asyncio.Event().wait()


def run_fake(port: int) -> None:
    asyncio.run(serve_fake(port))


@dataclass(frozen=True)
class Usage:
    """What processes had used at some moment: ``cpu_s`` and ``rss`` (bytes) by name; ``commands`` that Redis ran,
    those in scripts, too; ``redis_bytes`` that it keeps."""

    cpu_s: Mapping[str, float]
    rss: Mapping[str, int]
    commands: int
    redis_bytes: int


class Probed(LocalServer, CommandPart):
    """One of our commands that is up when ``url`` answers 200."""

    limit_s = 60.0
    url: str
    process: Child

    def answers(self) -> bool:
        return probe(self.url) is None


class Stand:
    """``settings``: for whoever talks to its queue. Limits on jobs and streams are out of the way."""

    def __init__(self, folder: Path, worker: bool = False) -> None:
        self.folder, self.port = folder, free_port()
        self.redis = RedisServer(folder / "redis")
        self.environment = {"VQD_REDIS_URL": self.redis.url, "VQD_PORT": str(self.port)}
        self.environment |= {"VQD_QUEUE_CAPACITY": "100000", "VQD_MAX_STREAMS": "10000", "VQD_SYNC_WAIT_S": "300"}
        self.settings = read_settings(redis_url=self.redis.url, redis_timeout_s=10.0)
        self.gateway = self.command("gateway", f"http://127.0.0.1:{self.port}/healthz")
        self.parts: list[LocalServer] = [self.redis, self.gateway]
        self.fake = None
        if worker:
            triton, status = free_port(), free_port()
            self.environment["VQD_TRITON_URL"] = f"127.0.0.1:{triton}"
            self.environment["VQD_REPOSITORY"] = str(folder / "repository")
            self.environment["VQD_WORKER_METRICS_PORT"] = str(status)
            self.fake = multiprocessing.get_context("spawn").Process(target=run_fake, args=(triton,), daemon=True)
            self.parts.append(self.command("worker", f"http://127.0.0.1:{status}/readyz"))

    def command(self, name: str, url: str) -> Probed:
        part = Probed(name, self.environment, self.folder / f"{name}.log", grace_s=15)
        part.url = url
        return part

    @contextmanager
    def running(self) -> Iterator["Stand"]:
        """Everything answers inside, and nothing is left outside."""
        with ExitStack() as stack:
            if self.fake:
                write_repository(self.folder / "repository")
                self.fake.start()
                stack.callback(self.fake.join)
                stack.callback(self.fake.terminate)
            for part in self.parts:
                stack.enter_context(part)
            self.asking = stack.enter_context(redis.Redis.from_url(self.redis.url))
            yield self

    def usage(self) -> Usage:
        facts: Any = self.asking.info("everything")
        processes = {part.name: part.process.pid for part in self.parts}
        return Usage(
            cpu_s={name: cpu_s(pid) for name, pid in processes.items()},
            rss={name: memory_of(pid).rss for name, pid in processes.items()},
            commands=sum(row["calls"] for name, row in facts.items() if name.startswith("cmdstat_")),
            redis_bytes=facts["used_memory"],
        )


def cpu_s(pid: int) -> float:
    """Seconds of processor that the threads of a process have used."""
    nanoseconds = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            nanoseconds += int(path.read_text().split()[0])
    return nanoseconds / 1e9
