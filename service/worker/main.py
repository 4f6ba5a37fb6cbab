"""The worker's process: reads the repository's two files, connects, runs until a signal."""

import asyncio
import logging
import os
import secrets
import signal
import socket
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from pydantic import ValidationError
from tokenizers import Tokenizer

from service.errors import SetupError
from service.logs import set_up_logging
from service.messages import ModelInfo
from service.metrics import WorkerMetrics
from service.queue.queue import JobQueue
from service.settings import Settings
from service.triton.client import TritonClient
from service.worker.worker import Worker

log = logging.getLogger(__name__)


def read_repository(repository: Path) -> tuple[ModelInfo, Tokenizer]:
    """``vqd.json`` and ``tokenizer.json`` of an exported repository. Raises SetupError naming setting and file."""
    path, setting = repository / "vqd.json", f"VQD_REPOSITORY={repository}"
    try:
        info = ModelInfo.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise SetupError(f"{setting}: {path} is missing: run `vqd export --repository {repository}`") from None
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise SetupError(f"{setting}: {path} is not from this version's `vqd export`: {reason}") from None
    try:
        return info, Tokenizer.from_file(str(repository / "tokenizer.json"))
    except Exception as error:  # the tokenizers library raises plain Exception
        raise SetupError(f"{setting}: {repository / 'tokenizer.json'} cannot be read: {error}") from error


def serve_metrics(settings: Settings, registry: CollectorRegistry) -> None:
    """Raises SetupError naming the setting when the port is taken."""
    port = settings.worker_metrics_port
    try:
        start_http_server(port, addr=settings.host, registry=registry)
    except OSError as error:
        raise SetupError(f"VQD_WORKER_METRICS_PORT={port}, VQD_HOST={settings.host}: {error.strerror}") from None


async def serve(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT, then drain. Raises what killed one of the worker's tasks."""
    info, tokenizer = read_repository(settings.repository)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    if settings.worker_metrics_port:
        serve_metrics(settings, registry)
    worker_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    queue = JobQueue.connect(settings)
    triton = TritonClient(settings.triton_url, settings.triton_timeout_s)
    worker = Worker(worker_id, settings, queue, triton, info, tokenizer, WorkerMetrics(registry))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    log.info("worker %s serves %s from Triton at %s", worker_id, info.name, settings.triton_url)
    try:
        await worker.run()
    finally:
        await queue.close()
        await triton.close(limit_s=1.0)
        await asyncio.to_thread(worker.tracer.close)


def run(settings: Settings) -> None:
    set_up_logging(settings.log_level, settings.log_format)
    asyncio.run(serve(settings))
