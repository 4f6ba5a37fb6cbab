"""The worker's process: reads the repository's two files, connects, runs until a signal."""

import asyncio
import logging
import os
import secrets
import signal
import socket

from prometheus_client import CollectorRegistry, ProcessCollector
from starlette.applications import Starlette

from service.engine.scheduler import Scheduler
from service.queue.store import Store
from service.settings import Settings
from service.sockets import listen
from service.storage import Bucket
from service.telemetry.choice import start_tracing
from service.telemetry.logs import set_up_logging
from service.telemetry.metrics import WorkerMetrics
from service.telemetry.port import SideServer
from service.triton.client import TritonClient
from service.triton.repository import read_repository
from service.worker.status import status_app
from service.worker.worker import Scheduling, Worker

log = logging.getLogger(__name__)


async def serve(settings: Settings, scheduling: Scheduling = Scheduler) -> None:
    """Work until SIGTERM or SIGINT, then drain. Raises what killed one of the worker's tasks."""
    info, tokenizer = read_repository(settings.repository)
    if bucket := Bucket.of(settings):
        await bucket.check_writable()
    port = None
    if settings.worker_metrics_port:
        port = listen(settings.host, settings.worker_metrics_port, "VQD_WORKER_METRICS_PORT")
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    worker_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    store = Store.connect(settings)
    tracer = start_tracing(settings, "worker", worker_id)
    triton = TritonClient(settings.triton_url, settings.triton_timeout_s, expected=info)
    metrics = WorkerMetrics(registry)
    worker = Worker(worker_id, settings, store, triton, info, tokenizer, metrics, tracer, scheduling, bucket)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    log.info("worker %s serves %s from Triton at %s", worker_id, info.name, settings.triton_url)
    try:
        await run_watched(worker, status_app(worker, metrics, settings.host), port)
    finally:
        await store.close()
        await triton.close(limit_s=1.0)
        await asyncio.to_thread(tracer.close)


async def run_watched(worker: Worker, status: Starlette, port: socket.socket | None) -> None:
    """Run the worker, and answer probes and scrapes on its own port as long as it runs, if it has one."""
    if not port:
        await worker.run()
        return
    server = SideServer(status)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve([port]), name="worker status")
        await worker.run()
        server.should_exit = True


def run(settings: Settings, scheduling: Scheduling = Scheduler) -> None:
    set_up_logging(settings.log_level, settings.log_format)
    asyncio.run(serve(settings, scheduling))
