"""A queue whose primary Sentinels choose: what becomes of jobs, requests and workers when it changes."""

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from both_sides import JobQueue
from fleet import Fleet, gather, serving, terminal_events
from gateway_harness import until
from queue_support import EVALUATIONS, make_job, opened, reached, settings_for
from redis_groups import SERVICE, Node, Sentinel, watched
from test_queue_faults import every_call_fails

from service.errors import NotDurable, RedisUnavailable
from service.messages import Job, Status
from service.queue import keys
from service.queue.notify import Notifier

Watched = tuple[list[Node], list[Sentinel], str]
BEFORE, AFTER = 10, 20
"""Jobs accepted before and after the primary is killed."""
CONNECTIONS = 20
ANSWER_S = 5.0
"""Two trips to Redis, each of a second at most, by three processes of a busy machine."""


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Watched]:
    with watched(tmp_path / "redis") as group:
        yield group


class Poster:
    """A client that posts all the time."""

    def __init__(self, http: httpx.Client) -> None:
        self.http, self.over = http, threading.Event()
        self.accepted: list[str] = []
        self.refused: list[int] = []
        self.slowest_s = 0.0
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        while not self.over.is_set():
            began_s = time.monotonic()
            request = {"prompt": "a red circle", "steps": 4, "seed": len(self.accepted)}
            answer = self.http.post("/generate", json=request, headers={"Prefer": "respond-async"})
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
            if answer.status_code in (200, 202):  # 200: it has ended already
                self.accepted.append(answer.json()["id"])
            else:
                self.refused.append(answer.status_code)
            self.over.wait(0.05)

    def stop(self) -> None:
        self.over.set()
        self.thread.join(10)


def test_12_accepted_jobs_outlive_a_primary_that_is_killed(group: Watched, tmp_path: Path) -> None:
    nodes, _, url = group
    fleet = Fleet(url, tmp_path, durable_replicas=1, redis_timeout_s=1.0)
    try:
        fleet.start_worker()
        with serving(fleet) as http:
            poster = Poster(http)
            until(lambda: len(poster.accepted) >= BEFORE)
            nodes[0].kill()
            known, killed_s = len(poster.accepted), time.monotonic()
            until(lambda: len(poster.accepted) >= known + AFTER, limit_s=15)
            assert time.monotonic() - killed_s < 15
            poster.stop()
            assert set(poster.refused) <= {503}
            assert poster.slowest_s < ANSWER_S
            for job_id in poster.accepted:
                fleet.wait(job_id)
            assert gather(fleet, poster.accepted, terminal_events) == [1] * len(poster.accepted)
            assert http.get("/readyz").status_code == 200
        assert all(process.poll() is None for process in (*fleet.workers, *fleet.others))
    finally:
        fleet.close()


async def accepted(queue: JobQueue) -> Job:
    """The first of several jobs that the queue takes."""
    async with asyncio.timeout(10):
        while True:
            try:
                job = make_job()
                await queue.enqueue(job, EVALUATIONS)
                return job
            except (RedisUnavailable, NotDurable):
                await asyncio.sleep(0.02)


@pytest.mark.anyio
async def test_the_queue_and_the_notifier_follow_the_primary_that_is_chosen(group: Watched) -> None:
    """Nothing is killed. The old primary does not hear of it for ten seconds, and takes what is written to it, to lose
    it then; without replicas it cannot take what must be durable."""
    nodes, watchers, url = group
    notifier = Notifier.connect(settings_for(url))
    listening = asyncio.create_task(notifier.run())
    try:
        async with opened(url, durable_replicas=1, durable_timeout_s=0.2) as queue, opened(url) as other:
            first = await accepted(queue)
            await other.ping()
            watchers[0].ask("SENTINEL", "FAILOVER", SERVICE)
            await asyncio.to_thread(until, lambda: follows_another(nodes[1:], nodes[0].port))
            second = await accepted(queue)
            assert nodes[0].ask("INFO", "replication")["role"] == "master"
            chosen = next(node for node in nodes[1:] if node.ask("INFO", "replication")["role"] == "master")
            assert chosen.ask("EXISTS", keys.job(first.id), keys.job(second.id)) == 2
            nodes[0].ask("REPLICAOF", "127.0.0.1", chosen.port)
            third = await accepted(other)  # over a connection to what is a replica now
            assert chosen.ask("EXISTS", keys.job(third.id)) == 1
            with notifier.watch(first.id, only_end=True) as watch:
                assert await queue.cancel(first.id) is Status.CANCELLED
                await watch.wait(5)
            assert not listening.done()
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await notifier.close()


def follows_another(replicas: list[Node], old: int) -> bool:
    """Whether one is a primary now, and the other its replica."""
    states = [node.ask("INFO", "replication") for node in replicas]
    ports = [state.get("master_port") for state in states]
    return None in ports and old not in ports and "up" in [state.get("master_link_status") for state in states]


@pytest.mark.anyio
async def test_sentinels_that_are_silent_or_gone_hold_nothing_up(group: Watched) -> None:
    """One may have been lost together with the primary."""
    _, watchers, url = group
    watchers[0].process.send_signal(signal.SIGSTOP)
    watchers[1].kill()
    try:
        async with opened(url, redis_timeout_s=3.0) as queue:
            began_s = time.monotonic()
            await asyncio.gather(*(queue.ping() for _ in range(10)))
            assert time.monotonic() - began_s < 3
    finally:
        watchers[0].process.send_signal(signal.SIGCONT)


@pytest.mark.anyio
async def test_a_primary_that_falls_silent_costs_one_wait_and_not_one_for_each_connection(group: Watched) -> None:
    nodes, _, url = group
    async with opened(url, redis_timeout_s=2.0) as queue:
        await asyncio.gather(*(queue.redis.xread({keys.CHANNEL: "$"}, block=50) for _ in range(CONNECTIONS)))
        nodes[0].process.send_signal(signal.SIGSTOP)
        try:
            await accepted(queue)
            await asyncio.gather(*(queue.enqueue(make_job(), EVALUATIONS) for _ in range(CONNECTIONS)))
        finally:
            nodes[0].process.send_signal(signal.SIGCONT)


@pytest.mark.anyio
async def test_what_is_wrong_with_the_sentinels_is_said(group: Watched) -> None:
    _, _, url = group
    async with opened(url.replace(f"/{SERVICE}/", "/other/")) as queue:
        with pytest.raises(RedisUnavailable, match="does not know the service"):
            await queue.ping()
    async with opened(f"{url}?sentinel_password=secret") as queue:
        with pytest.raises(RedisUnavailable, match="AUTH") as raised:
            await queue.ping()
        assert "secret" not in str(raised.value)


@pytest.mark.anyio
async def test_11_a_group_that_is_silent_or_gone_fails_every_call_in_time(group: Watched) -> None:
    nodes, watchers, url = group
    async with opened(url, redis_timeout_s=0.5) as queue:
        await reached(queue)
        for server in (*nodes, *watchers):
            server.process.send_signal(signal.SIGSTOP)
        await every_call_fails(queue, limit_s=1.5)
        for server in (*nodes, *watchers):
            server.kill()
        await every_call_fails(queue, limit_s=1.5)
