"""What operators and their machines ask."""

from collections import Counter

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.errors import RedisUnavailable, Unavailable
from service.gateway.problems import problem_of
from service.gateway.state import Gateway, GatewayState

router = APIRouter()


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> dict[str, str]:
    return {"status": "alive"}


async def obstacles(gateway: Gateway) -> list[str]:
    """Why a request would not be served now; none when it would."""
    if gateway.stopping.is_set():
        return ["the gateway is stopping"]
    try:
        await gateway.queue.ping()
        workers = await gateway.directory.workers()
    except RedisUnavailable as error:
        return [f"redis: {error}"]
    if any(worker.state == "ready" for worker in workers):
        return []
    return [f"worker {w.id} is {w.state}: {w.detail or 'no detail'}" for w in workers] or ["no live worker"]


@router.get("/readyz", summary="Would a request be served now?", response_model=dict[str, str])
async def readyz(request: Request, gateway: GatewayState) -> Response | dict[str, str]:
    reasons = await obstacles(gateway)
    if not reasons:
        return {"status": "ready"}
    return problem_of(request, Unavailable("; ".join(reasons)), reasons=reasons)


async def read_queue(gateway: Gateway) -> None:
    """Bring the gauges that mirror Redis up to date."""
    models = await gateway.directory.models()
    for name in models:
        gateway.metrics.set_depth(name, await gateway.queue.depths(name))
    states: Counter[str] = Counter(worker.state for worker in await gateway.directory.workers())
    gateway.metrics.set_workers(states)
    gateway.metrics.fenced_writes.set(await gateway.queue.fenced_writes())
    gateway.metrics.dead_letters.set(await gateway.queue.dead_lettered())


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(gateway: GatewayState) -> Response:
    """Also served while Redis is down: that is when they matter."""
    try:
        await gateway.queue.ping()
        await read_queue(gateway)
        gateway.metrics.redis_up.set(1)
    except RedisUnavailable:
        gateway.metrics.redis_up.set(0)
        gateway.metrics.redis_errors.inc()
    return Response(generate_latest(gateway.metrics.registry), media_type=CONTENT_TYPE_LATEST)
