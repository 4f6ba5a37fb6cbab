"""What operators and their machines ask."""

from collections import Counter

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.errors import NotDurable, RedisUnavailable, Unavailable
from service.gateway.problems import for_clients, problem_of
from service.gateway.schemas import Health
from service.gateway.state import Gateway, GatewayState
from service.telemetry.metrics import QueueState

router = APIRouter(tags=["service"])
SHOWN = 10
"""So many workers say why they are not ready; more would say the same."""


@router.get("/healthz", summary="Is the process alive?")
async def check_health() -> Health:
    return Health(status="alive")


async def obstacles(gateway: Gateway) -> list[str]:
    """Why a request would not be served now; none when it would."""
    if gateway.stopping.is_set():
        return ["the gateway is stopping"]
    try:
        await gateway.store.ping()
        await gateway.store.require_replicas()
        workers = await gateway.directory.workers()
    except (RedisUnavailable, NotDurable) as error:
        return [f"redis: {error}"]
    if any(worker.state == "ready" for worker in workers):
        return []
    return [f"worker {w.id} is {w.state}: {w.detail or 'no detail'}" for w in workers[:SHOWN]] or ["no live worker"]


@router.get("/readyz", summary="Would a request be served now?", response_model=Health)
async def check_readiness(request: Request, gateway: GatewayState) -> Response | Health:
    reasons = await obstacles(gateway)
    if not reasons:
        return Health(status="ready")
    return problem_of(request, Unavailable("; ".join(reasons)), reasons=[for_clients(reason) for reason in reasons])


async def read_queue(gateway: Gateway) -> QueueState:
    """What Redis knows now. Raises RedisUnavailable."""
    figures, models = gateway.figures, gateway.metrics.queue.models
    # Never forgotten: a model whose last worker has gone is the one whose queue grows.
    models.update(await gateway.directory.models())
    used_bytes, max_bytes = await figures.memory()
    webhooks, overdue_s = await figures.webhooks()
    return QueueState(
        workers=Counter(worker.state for worker in await gateway.directory.workers()),
        depths={name: await figures.depths(name) for name in models},
        oldest_s={name: await figures.oldest_s(name) for name in models},
        ended=await figures.ended(),
        fenced_writes=await figures.fenced_writes(),
        dead_letters=await figures.dead_lettered(),
        used_bytes=used_bytes,
        max_bytes=max_bytes,
        webhooks=webhooks,
        webhooks_overdue_s=overdue_s,
    )


@router.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
async def read_metrics(gateway: GatewayState) -> Response:
    """Also served while Redis is down: that is when they matter."""
    state = None
    try:
        await gateway.store.ping()
        state = await read_queue(gateway)
    except RedisUnavailable:
        gateway.metrics.redis_errors.inc()
    gateway.metrics.redis_up.set(state is not None)
    gateway.metrics.queue.state = state
    return Response(generate_latest(gateway.metrics.registry), media_type=CONTENT_TYPE_LATEST)
