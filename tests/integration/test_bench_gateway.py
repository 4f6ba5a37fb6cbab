"""The benches of the gateway and of a request's time, tiny, with real processes and the fake of Triton."""

import asyncio
import json
from pathlib import Path

from service.lab.bench.costs import Load
from service.lab.bench.gateway import measure_gateway
from service.lab.bench.profile import Profile, Traced
from service.lab.bench.spans import Collector
from service.lab.bench.stages import UNACCOUNTED
from service.lab.bench.stand import Stand

TINY = Load(jobs=12, portions=2, answered=5, waiting=3, listeners=3, events=2, idle_s=0.05)


def test_every_cost_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "gateway.json"
    printed = measure_gateway(TINY).published(path)
    found = {line["what"]: line["value"] for line in json.loads(path.read_text())["lines"]}
    for thing in ("Accepted job", "Poll of a job that waits", "Answered job, fake Triton"):
        assert found[f"{thing}: CPU of the gateway"] > 0
        assert f"| {thing}: rate with 16 clients |" in printed
    # The job, and a script of five that finds its place among those that wait; and what the gateway asks now and then.
    assert int(found["Poll of a job that waits: commands that Redis runs"]) == 7
    assert found["Answered job, fake Triton: CPU of the worker"] > 0
    for of in ("one job", "a job of their own each"):
        assert 0 < found[f"3 listeners of {of}: an event's way to them, p95"] < 10_000


def test_the_stages_of_requests_are_measured_with_their_own_traces(tmp_path: Path) -> None:
    with Collector() as collector:
        stand = Stand(tmp_path, worker=True)
        stand.environment |= {"VQD_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        with stand.running():
            columns = asyncio.run(Traced(stand.port, collector, None).columns(rounds=2))
    assert [(column.what, column.requests) for column in columns] == [("one alone", 2), ("8 at once, each", 16)]
    for column in columns:
        assert abs(sum(column.rows.values()) - column.wall_ms) < 0.01
        assert column.rows["step calls"] > 0
        assert column.rows["enqueue (Redis)"] > 0
        assert column.rows[UNACCOUNTED] < column.wall_ms / 2
    assert "step calls" in Profile(columns, {}).published(tmp_path / "profile.json")
