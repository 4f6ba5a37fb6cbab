"""The worker's own port: /healthz (alive), /readyz (would take work), /metrics.

It answers from the worker's event loop, so a loop that is stuck cannot call itself alive.
"""

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.errors import RedisUnavailable
from service.telemetry.metrics import WorkerMetrics
from service.telemetry.port import side_app
from service.worker.worker import Worker


def status_app(worker: Worker, metrics: WorkerMetrics, host: str) -> Starlette:
    """``host``: where the port is."""

    async def healthz(_: Request) -> Response:
        dead = worker.dead_parts()
        return answer("alive", f"ended: {', '.join(dead)}" if dead else None)

    async def readyz(_: Request) -> Response:
        return answer("ready", await obstacle(worker))

    async def scrape(_: Request) -> Response:
        metrics.tick()
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return side_app(host, [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", scrape)])


async def obstacle(worker: Worker) -> str | None:
    """Why it would not take a job now; None when it would."""
    if worker.health.state != "ready":
        return worker.health.trouble or worker.health.state
    try:
        await worker.store.ping()
    except RedisUnavailable as error:
        return str(error)
    return None


def answer(good: str, obstacle: str | None) -> Response:
    if obstacle is None:
        return JSONResponse({"status": good})
    return JSONResponse({"status": f"not {good}", "detail": obstacle}, status_code=503)
