"""The HTTP gateway: an ASGI application, and the server that runs it."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from starlette.middleware.cors import CORSMiddleware

from service.errors import RedisUnavailable
from service.gateway import problems
from service.gateway.access.guard import Guard
from service.gateway.access.headers import SecurityHeaders
from service.gateway.access.hosts import AllowedHosts, Names, may_be_key_free
from service.gateway.access.key_file import read_tokens
from service.gateway.access.known import KnownKeys, of_file
from service.gateway.access.origins import OwnPages, check_origins, cors_options
from service.gateway.access.quota import Refusals, on_over_quota, usual
from service.gateway.binding import check_binding
from service.gateway.bodies import BodyLimit, with_pictures
from service.gateway.bugs import AnswerBugs
from service.gateway.directory import Directory
from service.gateway.feeds import Feeds
from service.gateway.head import HeadAsGet
from service.gateway.observe import Observe
from service.gateway.openai.rendering import Renderer
from service.gateway.paths import route_path
from service.gateway.pictures.edits import Pictures
from service.gateway.pictures.places import Places
from service.gateway.pictures.reading import Limits
from service.gateway.routes import (
    document,
    generate,
    health,
    images,
    job_list,
    jobs,
    models,
    playground,
    scaled,
    webhooks,
)
from service.gateway.scraped import scraped
from service.gateway.server import Server, limits_of, raise_descriptor_limit
from service.gateway.state import Gateway
from service.gateway.tasks import cancel_tasks
from service.gateway.validation import on_validation_error
from service.gateway.webhooks.post import Post
from service.gateway.webhooks.postman import Postman
from service.gateway.webhooks.targets import Targets
from service.gateway.withdrawals import Withdrawals
from service.queue.account import OverQuota
from service.queue.api_keys import ApiKeys
from service.queue.figures import Figures
from service.queue.notify import Notifier
from service.queue.registrations import Registrations
from service.queue.store import Store
from service.queue.submissions import Submissions
from service.queue.webhooks import Deliveries
from service.settings import Settings, listed
from service.sockets import listen
from service.storage import Bucket
from service.telemetry.choice import start_tracing
from service.telemetry.logs import set_up_logging
from service.telemetry.metrics import GatewayMetrics
from service.telemetry.tracing import Tracer

log = logging.getLogger(__name__)

SHUTDOWN_S = 10
"""Longest time between the signal to stop and the last answer; sync callers get 202 at once, so it is seldom needed."""

WEBHOOKS_STOP_S = SHUTDOWN_S - 2
"""What attempts to deliver webhooks may have of it; there is time to give back those that take longer."""

UNTRACED = ("/healthz", "/readyz", "/metrics")
"""Asked every few seconds by machines."""

DESCRIPTION = "Text-to-image by VQ-Diffusion. Errors are RFC 9457 problems; `GET /v1/models` shows defaults and ranges."


def metrics_registry() -> CollectorRegistry:
    fresh = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=fresh)
    return fresh


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    gateway: Gateway = app.state.gateway
    background = [gateway.start("notifier", gateway.notifier.run())]
    sending = []
    if gateway.settings.webhook_secret:
        sending.append(gateway.start("webhooks", postman(gateway).run()))
    try:
        yield
    finally:
        gateway.stopping.set()
        await asyncio.gather(*sending, return_exceptions=True)
        await cancel_tasks(*background)
        await gateway.directory.close()
        await gateway.withdrawals.close()
        await gateway.notifier.close()
        await gateway.store.close()
        await asyncio.to_thread(gateway.tracer.close)


def postman(gateway: Gateway) -> Postman:
    post = Post(gateway.settings, Targets(gateway.settings))  # its own: requests use up none of its look-ups
    ending = (gateway.stopping, WEBHOOKS_STOP_S)
    unknown = gateway.withdrawals.jobs
    return Postman(Deliveries(gateway.store), post, gateway.metrics, gateway.settings, *ending, unknown)


def request_spans(tracer: Tracer) -> TelemetryConfig:
    """FastAPI makes the span of each request, as OpenTelemetry's conventions have it, and nothing else."""
    return {
        "tracing": tracer.provider is not None,
        "tracer_provider": tracer.provider,
        "exclude": lambda scope: route_path(scope) in UNTRACED,
        "operation_spans": False,
        "metrics": False,
        "logs": False,
        "auto_configure": False,
    }


def expect_requests(metrics: GatewayMetrics, router: APIRouter) -> None:
    for route in router.routes:
        if isinstance(route, APIRoute):
            for method in route.methods or ():
                metrics.expect(route.path, method)


def create_app(settings: Settings) -> FastAPI:
    """The application; it connects when it is first asked, so a Redis that comes up later is no obstacle."""
    store = Store.connect(settings)
    metrics = GatewayMetrics(metrics_registry())
    store.records.on_unreadable = lambda kind: metrics.unreadable.labels(kind).inc()
    tracer = start_tracing(settings, "gateway", f"{socket.gethostname()}-{os.getpid()}")
    app = FastAPI(
        title="vqd",
        description=DESCRIPTION,
        openapi_url=None,  # FastAPI's own knows nothing of the served models
        lifespan=lifespan,
        responses=problems.RESPONSES,
        generate_unique_id_function=lambda route: route.name,
        redirect_slashes=False,  # it would redirect to whatever the client calls our host
        telemetry=request_spans(tracer),
    )
    submissions = Submissions(store, open_bucket(settings, metrics))
    notifier, stopping = Notifier.connect(settings), asyncio.Event()
    app.state.gateway = Gateway(
        settings,
        store,
        submissions,
        Figures(store),
        notifier,
        Feeds(submissions, notifier, metrics, stopping),
        Withdrawals(submissions),
        Directory(Registrations(store)),
        Targets(settings),
        metrics,
        tracer,
        stopping,
        Renderer(),
        Places(),
        Pictures(Limits(settings.max_image_bytes, settings.max_image_pixels)),
        Refusals(metrics.by_key),
    )
    app.state.keys = known_keys(settings, store)
    app.state.routes = []
    for routes in (generate, images, scaled, job_list, jobs, webhooks, models, health, document, playground):
        app.include_router(routes.router)
        app.state.routes += routes.router.routes
        expect_requests(metrics, routes.router)
    add_error_answers(app, metrics)
    add_middleware(app, settings, metrics, tracer)
    return app


def open_bucket(settings: Settings, metrics: GatewayMetrics) -> Bucket | None:
    """Raises SetupError."""
    if bucket := Bucket.of(settings):
        bucket.on_read, bucket.on_failed = metrics.storage_seconds.observe, metrics.storage_errors.inc
    return bucket


def known_keys(settings: Settings, store: Store) -> KnownKeys:
    """Raises SetupError for a key file that cannot be used."""
    filed = of_file(read_tokens(settings.key_file), usual(settings)) if settings.key_file else {}
    return KnownKeys(settings, ApiKeys(store), filed)


def add_error_answers(app: FastAPI, metrics: GatewayMetrics) -> None:
    problems.install(app)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(OverQuota, on_over_quota)

    async def on_redis_error(request: Request, error: Exception) -> JSONResponse:
        metrics.redis_errors.inc()
        return await problems.on_error(request, error)

    app.add_exception_handler(RedisUnavailable, on_redis_error)


def add_middleware(app: FastAPI, settings: Settings, metrics: GatewayMetrics, tracer: Tracer) -> None:
    """What every request goes through, from the inside out."""
    larger = dict.fromkeys(("/generate", *images.PATHS), with_pictures(settings))
    limits = {"max_body_bytes": settings.max_body_bytes, "max_image_bytes": settings.max_image_bytes}
    app.add_middleware(BodyLimit, routes=app.state.routes, larger=larger, **limits)
    app.add_middleware(HeadAsGet)
    app.add_middleware(Guard, routes=app.state.routes, keys=app.state.keys, metrics=metrics)
    app.add_middleware(AnswerBugs)
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, **cors_options(settings))
    if may_be_key_free(settings):
        app.add_middleware(OwnPages, allowed=listed(settings.cors_origins))
    app.add_middleware(AllowedHosts, names=Names.of(settings))
    app.add_middleware(SecurityHeaders, embeddable=bool(settings.cors_origins))
    app.add_middleware(Observe, metrics=metrics, tracer=tracer)


async def serve(settings: Settings, listener: socket.socket, metrics_listener: socket.socket | None = None) -> None:
    """Serve until a signal; raises what killed a background task, and SetupError."""
    app = create_app(settings)
    if bucket := app.state.gateway.submissions.files.bucket:
        await bucket.check_readable()
    server = Server(app, limits_of(settings, raise_descriptor_limit()), SHUTDOWN_S)
    log.info("the gateway listens at %s, port %d", *listener.getsockname()[:2])
    await check_binding(settings, app.state.keys.any_exist)
    async with scraped(app.state.gateway, metrics_listener):
        await server.serve([listener])
    if app.state.gateway.died_of is not None:
        raise app.state.gateway.died_of


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then return. Raises SetupError when it may not or cannot listen where told."""
    check_origins(settings)
    set_up_logging(settings.log_level, settings.log_format)
    # After its graceful stop uvicorn raises the signal again; a stop that was asked for is not an error.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.ExitStack() as open_ports:
        listener, scrapes = open_ports.enter_context(listen(settings.host, settings.port, "VQD_PORT")), None
        if settings.metrics_port:
            scrapes = open_ports.enter_context(listen(settings.host, settings.metrics_port, "VQD_METRICS_PORT"))
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve(settings, listener, scrapes))
