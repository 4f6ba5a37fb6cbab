"""Where the milliseconds of a request go, alone and of eight at once, with the real service and its own traces."""

import asyncio
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families

from service.errors import Unavailable
from service.export.build import ensure_exported
from service.lab.bench.bounds import facts, workplace
from service.lab.bench.cases import plain
from service.lab.bench.costs import require
from service.lab.bench.report import show
from service.lab.bench.spans import Collector, Span
from service.lab.bench.stages import MODELS, Asked, TritonTimes, profile_of
from service.lab.bench.wire import Wire, connected, request
from service.local.supervisor import Supervisor
from service.settings import read_settings

AT_ONCE = 8
LAST = {"POST /generate", "complete"}
"""When a trace has these, it has all."""
SPANS_LIMIT_S = 30.0
QUEUE, EXECUTED = "nv_inference_queue_duration_us_total", "nv_inference_exec_count_total"
BACKEND = tuple(f"nv_inference_compute_{part}_duration_us_total" for part in ("input", "infer", "output"))
"""Of Triton, as prometheus_client names them."""


@dataclass(frozen=True)
class Column:
    """One way to ask. ``rows``: stage → mean milliseconds; they add up to ``wall_ms``, the mean wall time."""

    what: str
    rows: Mapping[str, float]
    wall_ms: float
    requests: int


@dataclass(frozen=True)
class Profile:
    columns: Sequence[Column]
    facts: Mapping[str, Any]

    def table(self) -> str:
        """Milliseconds and share of every stage, and what they add up to."""
        names = list(dict.fromkeys(name for column in self.columns for name in column.rows))
        rows = [["Stage, ms (share)", *(f"{column.what} ({column.requests})" for column in self.columns)]]
        rows.append(["---"] * len(rows[0]))
        for name in names:
            cells = (column.rows.get(name, 0.0) for column in self.columns)
            shares = zip(cells, self.columns, strict=True)
            rows.append([name, *(f"{show(round(ms, 2))} ({ms / column.wall_ms:.1%})" for ms, column in shares)])
        rows.append(["**wall time at the client**", *(f"**{show(round(c.wall_ms, 2))}**" for c in self.columns)])
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def published(self, path: Path) -> str:
        """Write everything to ``path`` as JSON; returns the Markdown table."""
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {**self.facts, "columns": [vars(column) for column in self.columns]}
        path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return f"{self.table()}\n\n{path}"


@dataclass(frozen=True)
class Traced:
    """A service that sends its spans to ``collector``; ``metrics_url``: Triton's, None where it has none."""

    port: int
    collector: Collector
    metrics_url: str | None

    def counters(self) -> dict[tuple[str, str], float]:
        """(counter, model) → value, of Triton."""
        if self.metrics_url is None:
            return {}
        text = httpx.get(self.metrics_url, timeout=5, trust_env=False).text
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return {(sample.name, sample.labels["model"]): sample.value for sample in samples if "model" in sample.labels}

    async def ask(self, wire: Wire, fields: Mapping[str, object]) -> Asked:
        trace = secrets.token_hex(16)
        sent = request("POST", "/generate", fields, f"traceparent: 00-{trace}-{secrets.token_hex(8)}-01")
        began = time.time_ns()
        answer = await wire.ask(sent)
        ended = time.time_ns()
        require([answer], 200)
        return Asked(trace, began, ended)

    async def spans_of(self, asked: Sequence[Asked]) -> dict[str, list[Span]]:
        """By trace, when all have come: processes send them now and then. Raises Unavailable when they do not."""
        give_up_s = time.monotonic() + SPANS_LIMIT_S
        while True:
            found: dict[str, list[Span]] = {one.trace: [] for one in asked}
            for span in [*self.collector.spans]:
                if span.trace in found:
                    found[span.trace].append(span)
            if all({span.name for span in spans} >= LAST for spans in found.values()):
                return found
            if time.monotonic() > give_up_s:
                raise Unavailable("the service did not send the spans of every request")
            await asyncio.sleep(0.1)

    async def column(self, what: str, wires: Sequence[Wire], rounds: int, first: int) -> Column:
        """Ask ``rounds`` times with all ``wires`` at once."""
        before, asked = self.counters(), list[Asked]()
        for number in range(rounds):
            cases = plain(len(wires), first + number * len(wires))
            asked += await asyncio.gather(*(self.ask(wire, case) for wire, case in zip(wires, cases, strict=True)))
        triton, spans = triton_times(before, self.counters()), await self.spans_of(asked)
        profiles = [profile_of(one, spans[one.trace], triton) for one in asked]
        names = dict.fromkeys(name for profile in profiles for name in profile)
        rows = {name: mean([profile.get(name, 0.0) for profile in profiles]) for name in names}
        return Column(what, rows, mean([(one.ended - one.began) / 1e6 for one in asked]), len(asked))

    async def columns(self, rounds: int) -> list[Column]:
        async with connected(self.port, AT_ONCE, Wire) as wires:
            await self.column("warm", wires, 2, 10_000)
            await self.column("warm", wires[:1], 2, 20_000)
            alone = await self.column("one alone", wires[:1], rounds, 0)
            return [alone, await self.column(f"{AT_ONCE} at once, each", wires, rounds, 1000)]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def triton_times(
    before: Mapping[tuple[str, str], float], after: Mapping[tuple[str, str], float]
) -> dict[str, TritonTimes]:
    """Per call, from Triton's own counters; empty where there are none."""
    times = {}
    for model in MODELS:
        grown = {name: after[name, model] - before.get((name, model), 0) for name, of in after if of == model}
        if calls := grown.get(EXECUTED, 0):
            backend = sum(grown[part] for part in BACKEND)
            times[model] = TritonTimes(grown[QUEUE] / calls / 1000, backend / calls / 1000)
    return times


def measure_profile(model: Path, rounds: int) -> Profile:
    """With a service that it starts itself. Raises SetupError or Unavailable when a part does not do its work."""
    about = facts(model, rounds=rounds)
    with workplace() as folder, Collector() as collector:
        ensure_exported(model, folder / "repository")
        supervisor = Supervisor(read_settings(port=0, repository=folder / "repository"), folder)
        supervisor.environment |= {"VQD_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
        with supervisor:
            supervisor.wait_ready()
            port, metrics_url = urlsplit(supervisor.url).port, supervisor.models[0].server.metrics_url
            assert port
            return Profile(asyncio.run(Traced(port, collector, metrics_url).columns(rounds)), about)
