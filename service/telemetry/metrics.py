"""Every Prometheus metric. Each process makes one of the classes on a registry of its own.

No label takes a value that a client chooses; what a dashboard divides by or an alert looks at exists from the start.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from service.messages import Priority, Status

REQUEST_S = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
MODEL_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2, 5, 10)
WAIT_S = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 900)
ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
TRITON_ERRORS = ("unavailable", "timeout", "invalid")
READ_BY_GATEWAY, READ_BY_WORKER = ("registration", "job", "event", "preview"), ("entry", "job", "checkpoint")
"""Kinds of records that may be of another version."""
WEBHOOK_OUTCOMES = ("delivered", "retried", "gone", "refused", "dead")
WORKER_STATES = ("ready", "unready", "draining")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
KEYS_SHOWN = 50
KEY_LIMITS = ("jobs", "crowd", "cost_per_minute", "result_bytes")
EXPECTED_STATUSES = (200, 401, 403, 429, 500, 503)
"""What every route may answer. A counter that begins with its first event hides that event from ``rate``."""

Family = TypeVar("Family", CounterMetricFamily, GaugeMetricFamily)


def running_version() -> str:
    try:
        return version("vqd")
    except PackageNotFoundError:  # a checkout that was never installed
        return "checkout"


def build_info(registry: CollectorRegistry) -> None:
    Info("vqd_build", "Version of the running code.", registry=registry).info({"version": running_version()})


def unreadable_records(registry: CollectorRegistry, kinds: Iterable[str]) -> Counter:
    counter = Counter(
        "vqd_unreadable_records_total",
        "Readings of records that only another version of the service understands.",
        ["kind"],
        registry=registry,
    )
    for kind in kinds:
        counter.labels(kind)
    return counter


@dataclass(frozen=True)
class QueueState:
    """What Redis knew when it was last asked. Depths and ages: per model, then per priority."""

    workers: Mapping[str, int]
    depths: Mapping[str, Mapping[str, int]]
    oldest_s: Mapping[str, Mapping[str, float]]
    ended: Mapping[str, int]
    fenced_writes: int
    dead_letters: int
    used_bytes: int
    max_bytes: int
    webhooks: int
    webhooks_overdue_s: float


class QueueMetrics(Collector):
    """What the gateway reads from Redis when it is scraped; nothing while Redis is silent, for old numbers would lie.

    The counts are kept in Redis: they outlive every process that could count them.
    """

    def __init__(self) -> None:
        self.state: QueueState | None = None
        self.models: set[str] = set()

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        depth = GaugeMetricFamily("vqd_queue_depth", "Jobs waiting or running.", labels=["model", "priority"])
        oldest = GaugeMetricFamily(
            "vqd_queue_oldest_seconds", "Age of the oldest job that no worker took.", labels=["model", "priority"]
        )
        ended = CounterMetricFamily("vqd_queue_jobs_ended", "Jobs ended, by any process.", labels=["outcome"])
        workers = GaugeMetricFamily("vqd_workers", "Live workers.", labels=["state"])
        fenced = CounterMetricFamily("vqd_queue_fenced_writes", "Writes refused to workers that had lost their job.")
        dead = CounterMetricFamily("vqd_queue_dead_letters", "Jobs given up after too many attempts.")
        used = GaugeMetricFamily("vqd_redis_used_bytes", "Memory that Redis uses.")
        most = GaugeMetricFamily("vqd_redis_max_bytes", "Most memory that Redis may use; 0: no limit.")
        webhooks = GaugeMetricFamily("vqd_queue_webhooks", "Webhooks of jobs in progress, or not answered yet.")
        overdue = GaugeMetricFamily("vqd_queue_webhooks_overdue_seconds", "Time since one of them was first due.")
        if (state := self.state) is not None:
            for model in state.depths:
                add_all(depth, [priority.value for priority in Priority], state.depths[model], model)
                add_all(oldest, [priority.value for priority in Priority], state.oldest_s[model], model)
            add_all(ended, [status.value for status in Status if status.terminal], state.ended)
            add_all(workers, WORKER_STATES, state.workers)
            fenced.add_metric([], state.fenced_writes)
            dead.add_metric([], state.dead_letters)
            used.add_metric([], state.used_bytes)
            most.add_metric([], state.max_bytes)
            webhooks.add_metric([], state.webhooks)
            overdue.add_metric([], state.webhooks_overdue_s)
        yield from (depth, oldest, ended, workers, fenced, dead, used, most, webhooks, overdue)


def add_all(family: Family, names: Iterable[str], values: Mapping[str, float], *labels: str) -> None:
    """One sample per name, 0 where there is no value."""
    for name in names:
        family.add_metric([*labels, name], values.get(name, 0))


class ByKey:
    """What API keys ask for; only of those that were used last, so that no number of keys makes the metrics large.

    A key that comes back begins with 0, which ``rate`` understands.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        of_key = ["key", "name"]
        self.jobs = Counter("vqd_key_jobs_total", "Jobs accepted.", of_key, registry=registry)
        self.passes = Counter("vqd_key_passes_total", "Passes of the network they cost.", of_key, registry=registry)
        self.refused = Counter(
            "vqd_key_refused_total", "Requests refused by a limit of the key.", [*of_key, "limit"], registry=registry
        )
        self.shown: dict[tuple[str, str], None] = {}

    def accept(self, owner: str, name: str, passes: int) -> None:
        if owner:
            self.show(owner, name)
            self.jobs.labels(owner, name).inc()
            self.passes.labels(owner, name).inc(passes)

    def refuse(self, owner: str, name: str, limit: str) -> None:
        self.show(owner, name)
        self.refused.labels(owner, name, limit).inc()

    def show(self, owner: str, name: str) -> None:
        """Begin its series, and end those of the key that was silent for longest when there are too many."""
        key = (owner, name)
        if key in self.shown:
            del self.shown[key]
        elif len(self.shown) == KEYS_SHOWN:
            self.forget(next(iter(self.shown)))
        self.shown[key] = None
        for limit in KEY_LIMITS:
            self.refused.labels(*key, limit)

    def forget(self, key: tuple[str, str]) -> None:
        del self.shown[key]
        for counter in (self.jobs, self.passes):
            counter.remove_by_labels(dict(zip(("key", "name"), key, strict=True)))
        self.refused.remove_by_labels(dict(zip(("key", "name"), key, strict=True)))


class GatewayMetrics:
    """What the gateway counts; ``queue`` is what it reads from Redis when it is scraped."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        build_info(registry)
        self.requests = Counter(
            "vqd_http_requests_total",
            "Requests; status 499: the client hung up, 0: the connection ended before any answer.",
            ["route", "method", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "vqd_http_request_seconds", "Time to answer.", ["route"], buckets=REQUEST_S, registry=registry
        )
        self.hangups = Counter(
            "vqd_http_hangups_total", "Jobs cancelled because their client hung up.", registry=registry
        )
        self.replays = Counter(
            "vqd_http_idempotent_replays_total", "Requests answered with an earlier job.", registry=registry
        )
        self.redis_up = Gauge("vqd_redis_up", "1 when Redis answered this scrape.", registry=registry)
        self.redis_errors = Counter("vqd_redis_errors_total", "Operations Redis did not answer.", registry=registry)
        self.storage_errors = Counter(
            "vqd_storage_errors_total", "Pictures that S3 storage did not give.", registry=registry
        )
        self.storage_seconds = Histogram(
            "vqd_storage_seconds", "One picture from S3 storage.", buckets=MODEL_S, registry=registry
        )
        self.webhooks = Counter(
            "vqd_webhooks_total", "Attempts to deliver a webhook, by what came of it.", ["outcome"], registry=registry
        )
        for outcome in WEBHOOK_OUTCOMES:
            self.webhooks.labels(outcome)
        self.unreadable = unreadable_records(registry, READ_BY_GATEWAY)
        self.by_key = ByKey(registry)
        self.queue = QueueMetrics()
        registry.register(self.queue)

    def expect(self, route: str, method: str) -> None:
        """Begin the series of a route with 0."""
        self.request_seconds.labels(route)
        for status in EXPECTED_STATUSES:
            self.requests.labels(route, method, status)

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """``method`` is the client's word and may be anything."""
        self.requests.labels(route, method if method in METHODS else "other", status).inc()
        self.request_seconds.labels(route).observe(seconds)


class WallTime:
    """Adds to ``counter`` the wall time in which at least one user is inside; several at once count once."""

    def __init__(self, counter: Counter) -> None:
        self.counter, self.inside, self.counted_s = counter, 0, time.monotonic()

    def tick(self) -> None:
        """Count up to now. Who stays long needs it at every scrape, or the counter jumps when they leave."""
        now_s = time.monotonic()
        if self.inside:
            self.counter.inc(now_s - self.counted_s)
        self.counted_s = now_s

    def enter(self) -> None:
        self.tick()
        self.inside += 1

    def leave(self, *_: object) -> None:
        self.tick()
        self.inside -= 1

    __enter__, __exit__ = enter, leave


class WorkerMetrics:
    """What a worker counts. ``in_model`` over ``busy`` is the service's efficiency, 1 at best."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        build_info(registry)

        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, registry=registry)

        def seconds(name: str, text: str, buckets: tuple[float, ...] = MODEL_S) -> Histogram:
            return Histogram(name, text, buckets=buckets, registry=registry)

        self.jobs = Counter("vqd_jobs_total", "Jobs finished here.", ["outcome"], registry=registry)
        for outcome in (status for status in Status if status.terminal):
            self.jobs.labels(outcome)
        self.images = counter("vqd_images_total", "Pictures finished here.")
        self.adapted_jobs = counter("vqd_adapted_jobs_total", "Jobs given fewer evaluations, to meet their deadline.")
        self.previews = counter("vqd_previews_total", "Pictures in progress that were shown to whoever asked.")
        self.evaluations = counter("vqd_evaluations_total", "Evaluations of the network, one per row and step.")
        self.evaluations_repeated = counter("vqd_evaluations_repeated_total", "Evaluations done again after a resume.")
        self.queue_wait_seconds = seconds("vqd_queue_wait_seconds", "From accepted to first admitted.", WAIT_S)
        self.job_seconds = seconds("vqd_job_seconds", "From accepted to finished.", REQUEST_S)
        self.encode_seconds = seconds("vqd_encode_seconds", "One call of the text encoder.")
        self.read_seconds = seconds("vqd_read_seconds", "One call of the image encoder.")
        self.step_seconds = seconds("vqd_step_seconds", "One call of the diffusion step.")
        self.decode_seconds = seconds("vqd_decode_seconds", "One call of the image decoder.")
        self.storage_seconds = seconds("vqd_storage_seconds", "One picture to S3 storage.")
        self.storage_errors = counter(
            "vqd_storage_errors_total", "Pictures that S3 storage did not take, kept in Redis instead."
        )
        self.rows_per_call = Histogram(
            "vqd_rows_per_call", "Rows in one call of the diffusion step.", buckets=ROWS, registry=registry
        )
        self.rows_in_flight = Gauge("vqd_rows_in_flight", "Pictures in progress here.", registry=registry)
        self.busy = WallTime(counter("vqd_busy_seconds_total", "Time with at least one job held here."))
        self.in_model = WallTime(counter("vqd_model_seconds_total", "Time with at least one call to Triton under way."))
        self.checkpoints = counter("vqd_checkpoints_total", "Checkpoints written while jobs ran.")
        self.resumes = counter("vqd_resumes_total", "Jobs taken over from their checkpoint.")
        self.handovers = counter("vqd_handovers_total", "Jobs handed over: while draining, or for want of Triton.")
        self.fenced_writes = counter("vqd_fenced_writes_total", "Writes refused because another worker owns the job.")
        self.redis_errors = counter("vqd_redis_errors_total", "Operations that Redis did not answer.")
        self.unreadable = unreadable_records(registry, READ_BY_WORKER)
        self.triton_up = Gauge("vqd_triton_up", "1 when Triton answered the last real inference.", registry=registry)
        self.triton_errors = Counter("vqd_triton_errors_total", "Failed calls to Triton.", ["kind"], registry=registry)
        for kind in TRITON_ERRORS:
            self.triton_errors.labels(kind)

    def tick(self) -> None:
        """Before a scrape, so that it finds the times up to date, and both to the same moment."""
        self.busy.tick()
        self.in_model.tick()
