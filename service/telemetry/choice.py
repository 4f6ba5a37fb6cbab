"""Which tracer a process writes to."""

from service.errors import SetupError
from service.settings import Settings
from service.telemetry.otel import OtelTracer
from service.telemetry.tracing import Tracer


def start_tracing(settings: Settings, role: str, instance: str) -> Tracer:
    """The tracer of one process, which shows as service ``vqd-<role>``; without ``VQD_OTLP_ENDPOINT`` it does nothing.

    Raises SetupError without the extra ``otel``.
    """
    if not settings.otlp_endpoint:
        return Tracer()
    try:
        return OtelTracer(settings.otlp_endpoint, f"vqd-{role}", instance)
    except ModuleNotFoundError as error:
        raise SetupError(
            f"VQD_OTLP_ENDPOINT is set and the package {error.name!r} is missing: pip install 'vqd[otel]'"
        ) from None
