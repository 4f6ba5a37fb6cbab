"""Traces sent by OpenTelemetry. FastAPI brings its API; its SDK and exporter come with the extra ``otel``."""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.telemetry.tracing import Attributes, Share, Tracer

CLOSE_S = 2.0
"""Longest time that a process waits at its end for the collector."""
PROPAGATOR = TraceContextTextMapPropagator()


def provider(endpoint: str, resource: Attributes) -> Any:
    """What makes spans and sends them in batches, from a thread of its own. Raises ImportError without the extra."""
    # Here, so that a process without traces neither needs nor loads them.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    made = TracerProvider(resource=Resource.create(resource), shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")))
    return made


class OtelTracer(Tracer):
    """A collector that is away costs spans, never a request."""

    def __init__(self, endpoint: str, service: str, instance: str) -> None:
        self.provider = provider(endpoint, {"service.name": service, "service.instance.id": instance})
        self.tracer = self.provider.get_tracer("vqd")

    def traceparent(self) -> str | None:
        carrier: dict[str, str] = {}
        PROPAGATOR.inject(carrier)
        return carrier.get("traceparent")

    def annotate(self, attributes: Attributes) -> None:
        trace.get_current_span().set_attributes(attributes)

    def inside(self, name: str) -> contextlib.AbstractContextManager[Any]:
        # What an exception says may be a prompt.
        silent = {"record_exception": False, "set_status_on_exception": False}
        span: contextlib.AbstractContextManager[Any] = self.tracer.start_as_current_span(name, **silent)
        return span

    @contextlib.contextmanager
    def during(self, name: str, shares: Iterable[Share]) -> Iterator[None]:
        began_ns, failure = time.time_ns(), None
        try:
            yield
        except BaseException as error:
            failure = error
            raise
        finally:
            for share in shares:
                self.record(name, share, began_ns, time.time_ns(), failure)

    def record(
        self, name: str, share: Share, began_ns: int, ended_ns: int, failure: BaseException | None = None
    ) -> None:
        job, attributes = share
        if job.traceparent is None:
            return
        parent = PROPAGATOR.extract({"traceparent": job.traceparent})
        span = self.tracer.start_span(name, parent, attributes=attributes, start_time=began_ns)
        if failure:
            span.set_attribute("error.type", type(failure).__name__)
            span.set_status(StatusCode.ERROR)
        span.end(ended_ns)

    def close(self) -> None:
        closing = threading.Thread(target=self.provider.shutdown, name="last spans", daemon=True)
        closing.start()
        closing.join(CLOSE_S)
