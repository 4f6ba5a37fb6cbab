"""Redis or Triton away: seen in /readyz with the reason, in the log and in a metric; healed without a restart."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fleet import Fleet, serving
from gateway_harness import until

from service.local.redis import RedisServer


class Outage:
    """A gateway and a worker that were started with a Redis, a Triton or both not there."""

    def __init__(self, redis: RedisServer, fleet: Fleet, http: httpx.Client) -> None:
        self.redis, self.fleet, self.http = redis, fleet, http

    def reasons(self) -> str:
        """Why it is not ready; empty when it is."""
        response = self.http.get("/readyz")
        return "" if response.status_code == 200 else "; ".join(response.json()["reasons"])

    def metric(self, line: str) -> float:
        lines = self.http.get("/metrics").text.splitlines()
        return next(float(found.rpartition(" ")[2]) for found in lines if found.startswith(line + " "))

    def logged(self, name: str, level: str, *words: str) -> bool:
        return any(
            line["level"] == level and all(word in line["message"] for word in words)
            for line in self.fleet.log_lines(name)
        )

    def nobody_died(self) -> bool:
        return all(process.poll() is None for process in (*self.fleet.workers, *self.fleet.others))


@pytest.fixture
def outage(tmp_path: Path) -> Iterator[Outage]:
    redis = RedisServer(tmp_path / "redis")
    fleet = Fleet(redis.url, tmp_path)
    try:
        fleet.background.call(fleet.triton.stop())
        fleet.start_worker(ready=False)
        with serving(fleet, until_ok="/healthz") as client:
            yield Outage(redis, fleet, client)
    finally:
        fleet.close()


def test_redis_away_at_the_start_and_again_later(outage: Outage) -> None:
    outage.fleet.background.call(outage.fleet.triton.start())
    address = f"127.0.0.1:{outage.redis.port}"
    for _ in range(2):
        until(lambda: outage.reasons().startswith("redis: "), limit_s=30)
        assert address not in outage.reasons()
        assert outage.metric("vqd_redis_up") == 0
        until(lambda: outage.logged("gateway", "WARNING", "Redis", address))
        until(lambda: outage.logged("worker-1", "WARNING", "Redis", address))
        with outage.redis:
            until(lambda: not outage.reasons(), limit_s=30)
            assert outage.metric("vqd_redis_up") == 1
            until(lambda: outage.logged("gateway", "INFO", "Redis answers again"))
    assert outage.nobody_died()


def test_triton_away_at_the_start_and_again_later(outage: Outage) -> None:
    fleet, url = outage.fleet, outage.fleet.triton.url
    with outage.redis:
        for times in (1, 2):
            until(lambda: "is unready: Triton at (address)" in outage.reasons(), limit_s=30)
            assert url not in outage.reasons()
            until(lambda: outage.metric('vqd_workers{state="unready"}') == 1)
            complaints = [line["message"] for line in fleet.log_lines("worker-1") if line["level"] == "ERROR"]
            assert len(complaints) == times, "one line when it goes, not one per try"
            assert url in complaints[-1]
            fleet.background.call(fleet.triton.start())
            until(lambda: not outage.reasons(), limit_s=30)
            until(lambda: outage.metric('vqd_workers{state="ready"}') == 1)
            assert outage.logged("worker-1", "INFO", "ready: Triton answers")
            fleet.background.call(fleet.triton.stop())
    assert outage.nobody_died()
