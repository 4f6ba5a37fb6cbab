"""OpenTelemetry behind ``service.tracing``; the only importer of its packages, which the extra ``otel`` brings."""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.tracing import Attributes, Part, Tracer

CLOSE_S = 2.0
"""Longest time that a process waits at its end for the collector."""
PROPAGATOR = TraceContextTextMapPropagator()


class OtelTracer(Tracer):
    """Sends spans in batches from a thread of its own; a collector that is away costs spans, never a request."""

    def __init__(self, endpoint: str, service: str, instance: str) -> None:
        resource = Resource.create({"service.name": service, "service.instance.id": instance})
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self.provider.add_span_processor(BatchSpanProcessor(exporter))
        self.tracer = self.provider.get_tracer("vqd")

    def traceparent(self) -> str | None:
        carrier: dict[str, str] = {}
        PROPAGATOR.inject(carrier)
        return carrier.get("traceparent")

    def annotate(self, attributes: Attributes) -> None:
        trace.get_current_span().set_attributes(attributes)

    @contextlib.contextmanager
    def during(self, name: str, parts: Iterable[Part]) -> Iterator[None]:
        began_ns, failure = time.time_ns(), None
        try:
            yield
        except BaseException as error:
            failure = error
            raise
        finally:
            for part in parts:
                self.record(name, part, began_ns, time.time_ns(), failure)

    def record(self, name: str, part: Part, began_ns: int, ended_ns: int, failure: BaseException | None = None) -> None:
        job, attributes = part
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
