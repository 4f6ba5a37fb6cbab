"""Every Prometheus metric. Each process makes one of the classes on a registry of its own."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from service.messages import Priority, Status

REQUEST_S = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120)
MODEL_S = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2, 5)
WAIT_S = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 900)
ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
TRITON_ERRORS = ("unavailable", "timeout", "invalid")


def build_info(registry: CollectorRegistry) -> None:
    try:
        running = version("vqd")
    except PackageNotFoundError:  # a checkout that was never installed
        running = "checkout"
    Info("vqd_build", "Version of the running code.", registry=registry).info({"version": running})


class GatewayMetrics:
    """What the gateway counts, and what it reads from Redis when it is scraped."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        build_info(registry)
        self.requests = Counter(
            "vqd_http_requests_total", "Requests; status 0: hung up.", ["route", "method", "status"], registry=registry
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
        self.queue_depth = Gauge(
            "vqd_queue_depth", "Jobs waiting or running.", ["model", "priority"], registry=registry
        )
        self.workers = Gauge("vqd_workers", "Live workers.", ["state"], registry=registry)
        self.set_workers({})
        # Gauges, since the counts are kept in Redis: they outlive every process that could count them.
        self.fenced_writes = Gauge("vqd_queue_fenced_writes", "Refused writes, ever.", registry=registry)
        self.dead_letters = Gauge("vqd_queue_dead_letters", "Dead-lettered jobs, ever.", registry=registry)

    def set_depth(self, model: str, depths: Mapping[str, int]) -> None:
        for priority in Priority:
            self.queue_depth.labels(model, priority).set(depths.get(priority, 0))

    def set_workers(self, states: Mapping[str, int]) -> None:
        for state in ("ready", "unready", "draining"):
            self.workers.labels(state).set(states.get(state, 0))


class WorkerMetrics:
    """What a worker counts. ``model_seconds`` over ``busy_seconds`` is the service's efficiency."""

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
        self.evaluations = counter("vqd_evaluations_total", "Evaluations of the network, one per row and step.")
        self.evaluations_repeated = counter("vqd_evaluations_repeated_total", "Evaluations done again after a resume.")
        self.queue_wait_seconds = seconds("vqd_queue_wait_seconds", "From accepted to admitted.", WAIT_S)
        self.job_seconds = seconds("vqd_job_seconds", "From accepted to finished.", REQUEST_S)
        self.encode_seconds = seconds("vqd_encode_seconds", "One call of the text encoder.")
        self.step_seconds = seconds("vqd_step_seconds", "One call of the diffusion step.")
        self.decode_seconds = seconds("vqd_decode_seconds", "One call of the image decoder.")
        self.rows_per_call = Histogram(
            "vqd_rows_per_call", "Rows in one call of the diffusion step.", buckets=ROWS, registry=registry
        )
        self.rows_in_flight = Gauge("vqd_rows_in_flight", "Pictures in progress here.", registry=registry)
        self.busy_seconds = counter("vqd_busy_seconds_total", "Time with at least one row in flight.")
        self.model_seconds = counter("vqd_model_seconds_total", "Time spent in calls to Triton.")
        self.checkpoints = counter("vqd_checkpoints_total", "Checkpoints written.")
        self.resumes = counter("vqd_resumes_total", "Jobs taken over from their checkpoint.")
        self.handovers = counter("vqd_handovers_total", "Jobs handed over while draining.")
        self.fenced_writes = counter("vqd_fenced_writes_total", "Writes refused because another worker owns the job.")
        self.dead_letters = counter("vqd_dead_letters_total", "Jobs given up after too many attempts.")
        self.redis_errors = counter("vqd_redis_errors_total", "Operations that Redis did not answer.")
        self.triton_errors = Counter("vqd_triton_errors_total", "Failed calls to Triton.", ["kind"], registry=registry)
        for kind in TRITON_ERRORS:
            self.triton_errors.labels(kind)
