"""What a process writes of its traces, and the tracer that writes nothing.

A trace begins with the HTTP request and goes on in every worker that the job meets: its W3C ``traceparent`` travels
in the job. Spans are recorded when what they tell of is over, so a killed worker leaves no half of one, and all are
children of the request's span, so that none waits for a parent that was never sent.
"""

import contextlib
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from service.messages import Job

Attributes = Mapping[str, str | int | float | bool]
Share = tuple[Job, Attributes]
"""A job that took part in some work, and what there is to say about its share."""


class Tracer:
    """The one that does nothing. ``provider`` is OpenTelemetry's, for libraries that make spans themselves."""

    provider: Any = None

    def traceparent(self) -> str | None:
        """The current span, as the job carries it; None: the job is not traced."""
        return None

    def annotate(self, attributes: Attributes) -> None:
        """Say more about the current span."""

    def inside(self, name: str) -> AbstractContextManager[Any]:
        """A span of what happens inside, below the current one."""
        return contextlib.nullcontext()

    def during(self, name: str, shares: Iterable[Share]) -> AbstractContextManager[None]:
        """A span of what happens inside in the trace of each job. ``shares`` is read at the end, if at all."""
        return contextlib.nullcontext()

    def record(self, name: str, share: Share, began_ns: int, ended_ns: int) -> None:
        """A span of the past, in Unix time."""

    def close(self) -> None:
        """Send what is left. Takes some seconds at most, whatever the collector does."""
