"""Where the time of one request goes: its spans, laid end to end between the moments that its client saw. Pure.

Every stage begins where the one before it ends, so that together they are the client's wall time. What the spans do
not explain is a stage of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from service.lab.bench.spans import Span

MS = 1_000_000
"""Nanoseconds."""
MODELS = {"text_encoder": "encode", "diffusion_step": "diffusion_step", "image_decoder": "decode"}
"""Served model → the span of a call to it."""
CALLS = {"encode": "encode", "diffusion_step": "step calls", "decode": "decode"}
WAITS = {
    "encode": "until a worker has claimed and tokenised it",
    "diffusion_step": "between calls: other requests' turns, scheduler",
    "decode": "until the grid is decoded: a turn",
}
"""A span of the worker → what the time before it is called."""
UNACCOUNTED = "unaccounted"


@dataclass(frozen=True)
class Asked:
    """A request as its client saw it; Unix time in nanoseconds. ``trace``: the id that it sent."""

    trace: str
    began: int
    ended: int


@dataclass(frozen=True)
class TritonTimes:
    """Of one model, on average over its calls: milliseconds in Triton's queue, and in the backend."""

    queue: float = 0.0
    backend: float = 0.0


def stages(asked: Asked, spans: Sequence[Span]) -> Iterator[tuple[str, float]]:
    """(what, milliseconds), in order. A moment counts once: a span before whose end another has begun, or the client
    has had its answer, is counted up to there."""
    named = {span.name: span for span in spans}
    http, enqueue, answer = named["POST /generate"], named["enqueue"], named["answer"]
    store = named["complete"]
    marks = [
        ("client → route: connection, HTTP parser, middleware", http.began),
        ("JSON, validation, plan", enqueue.began),
        ("enqueue (Redis)", enqueue.ended),
    ]
    for span in sorted((span for span in spans if span.name in CALLS), key=lambda span: span.began):
        marks += [(WAITS[span.name], span.began), (CALLS[span.name], span.ended)]
    marks += [
        ("PNG", store.began),
        ("store (Redis)", min(store.ended, answer.began)),
        ("the gateway is told, and reads the job", answer.began),
        ("answer: pictures from Redis, JSON", answer.ended),
        ("answer → client: middleware, log, connection", http.ended),
        (UNACCOUNTED, asked.ended),
    ]
    now = asked.began
    for what, mark in marks:
        until = min(max(now, mark), asked.ended)
        yield what, (until - now) / MS
        now = until


def profile_of(asked: Asked, spans: Sequence[Span], triton: Mapping[str, TritonTimes]) -> dict[str, float]:
    """Stage → milliseconds; calls are split into what Triton says of itself and what is around it."""
    total: dict[str, float] = {}
    for what, ms in stages(asked, spans):
        total[what] = total.get(what, 0.0) + ms
    return {row: ms for what, whole in total.items() for row, ms in split(what, whole, spans, triton)}


def split(
    what: str, whole: float, spans: Sequence[Span], triton: Mapping[str, TritonTimes]
) -> Iterator[tuple[str, float]]:
    model = next((model for model, span in MODELS.items() if CALLS[span] == what), None)
    if model is None or model not in triton:
        yield what, whole
        return
    calls = sum(span.name == MODELS[model] for span in spans)
    times = triton[model]
    queue, backend = calls * times.queue, calls * times.backend
    yield f"{what}: in the backend", backend
    yield f"{what}: in Triton's queue", queue
    yield f"{what}: batch, gRPC, Triton's front, turn", whole - queue - backend
