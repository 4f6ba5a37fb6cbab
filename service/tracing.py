"""Traces, or nothing: without ``VQD_OTLP_ENDPOINT`` no span is made, and nothing of the extra ``otel`` imported by us.

A trace begins with the HTTP request and goes on in every worker that the job meets: its W3C ``traceparent`` travels
in the job. Spans are recorded when what they tell of is over, so a killed worker leaves no half of one, and all are
children of the request's span, so that none waits for a parent that was never sent.
"""

import contextlib
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any

from service.errors import SetupError
from service.messages import Job
from service.settings import Settings

Attributes = Mapping[str, str | int | float | bool]
Part = tuple[Job, Attributes]
"""A job that took part in some work, and what there is to say about its part."""


class Tracer:
    """The one that does nothing. ``provider`` is OpenTelemetry's, for libraries that make spans themselves."""

    provider: Any = None

    def traceparent(self) -> str | None:
        """The current span, as the job carries it; None: the job is not traced."""
        return None

    def annotate(self, attributes: Attributes) -> None:
        """Say more about the current span."""

    def during(self, name: str, parts: Iterable[Part]) -> AbstractContextManager[None]:
        """A span of what happens inside in the trace of each part. ``parts`` is read at the end, if at all."""
        return contextlib.nullcontext()

    def record(self, name: str, part: Part, began_ns: int, ended_ns: int) -> None:
        """A span of the past, in Unix time."""

    def close(self) -> None:
        """Send what is left. Takes some seconds at most, whatever the collector does."""


def start_tracing(settings: Settings, role: str, instance: str) -> Tracer:
    """The tracer of one process, which shows as service ``vqd-<role>``. Raises SetupError without the extra."""
    if not settings.otlp_endpoint:
        return Tracer()
    try:
        tracer: Tracer = import_module("service.otel").OtelTracer(settings.otlp_endpoint, f"vqd-{role}", instance)
    except ModuleNotFoundError as error:
        raise SetupError(
            f"VQD_OTLP_ENDPOINT is set and the package {error.name!r} is missing: pip install 'vqd[otel]'"
        ) from None
    return tracer
