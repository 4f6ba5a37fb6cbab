"""A queue in a cluster: all its keys are in one slot, whose owner may change."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import Fleet, gather, serving, terminal_events
from gateway_harness import until
from queue_support import EVALUATIONS, MODEL, make_job, make_result, opened, reached, settings_for
from redis.crc import key_slot
from redis_groups import Node, clustered
from test_queue_faults import every_call_fails

from service.errors import RedisUnavailable
from service.messages import Status
from service.queue import keys
from service.queue.notify import Notifier

Cluster = tuple[list[Node], str]
SLOT = key_slot(keys.CHANNEL.encode())


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with clustered(tmp_path / "redis", SLOT) as cluster:
        yield cluster


def test_jobs_go_on_when_the_shard_of_the_queue_loses_its_primary(cluster: Cluster, tmp_path: Path) -> None:
    nodes, url = cluster
    fleet = Fleet(url, tmp_path, durable_replicas=1)
    ask = {"prompt": "a red circle", "steps": 4}
    try:
        fleet.start_worker()
        with serving(fleet) as http:
            asynchronous = {"Prefer": "respond-async"}
            accepted = [http.post("/generate", json=ask, headers=asynchronous).json()["id"] for _ in range(5)]
            nodes[0].kill()
            answers = []

            def refused_for_want_of_replicas() -> bool:
                answers.append(http.post("/generate", json=ask))
                return bool(answers[-1].json()["type"] == "urn:vqd:problem:not-durable")

            until(refused_for_want_of_replicas, limit_s=30)
            assert {answer.status_code for answer in answers} == {503}
            for job_id in accepted:
                fleet.wait(job_id)
            assert gather(fleet, accepted, terminal_events) == [1] * len(accepted)
            assert "replicas" in http.get("/readyz").text
            nodes[0].start()  # and it follows the one that took its place
            until(lambda: http.post("/generate", json=ask).status_code == 200, limit_s=30, pause_s=0.1)
            assert http.get("/readyz").status_code == 200
        assert all(process.poll() is None for process in (*fleet.workers, *fleet.others))
    finally:
        fleet.close()


def begin_move(old: Node, new: Node) -> None:
    new.ask("CLUSTER", "SETSLOT", SLOT, "IMPORTING", old.ask("CLUSTER", "MYID"))
    old.ask("CLUSTER", "SETSLOT", SLOT, "MIGRATING", new.ask("CLUSTER", "MYID"))


def move_keys(old: Node, new: Node, most: int) -> None:
    for key in old.ask("CLUSTER", "GETKEYSINSLOT", SLOT, most):
        old.ask("MIGRATE", "127.0.0.1", new.port, key, 0, 5000)


def end_move(nodes: list[Node], new: Node) -> None:
    for node in (new, *nodes):
        if node.ask("INFO", "replication")["role"] == "master":
            node.ask("CLUSTER", "SETSLOT", SLOT, "NODE", new.ask("CLUSTER", "MYID"))


@pytest.mark.anyio
async def test_the_queue_moves_with_its_slot(cluster: Cluster) -> None:
    """While it is on the way, whatever needs a key that has gone or is still to come is refused whole."""
    nodes, url = cluster
    old, new = nodes[:2]
    notifier = Notifier.connect(settings_for(url))
    listening = asyncio.create_task(notifier.run())
    try:
        async with opened(url) as queue:
            jobs = [make_job() for _ in range(3)]
            for job in jobs:
                await queue.enqueue(job, EVALUATIONS)
            [lease] = await queue.take(MODEL, "worker", 2, 0)
            begin_move(old, new)
            move_keys(old, new, most=4)
            with pytest.raises(RedisUnavailable):
                await queue.enqueue(make_job(), EVALUATIONS)
            with pytest.raises(RedisUnavailable):
                await queue.complete(lease, make_result(), [b"one", b"two"])
            move_keys(old, new, most=100)
            end_move(nodes, new)
            assert await queue.renew(lease)
            await queue.complete(lease, make_result(), [b"one", b"two"])
            assert [job.id for job in jobs[1:]] == [lease.job.id for lease in await queue.take(MODEL, "worker", 8, 0)]
            assert await queue.image(jobs[0].id, 1) == b"two"
            with notifier.watch(jobs[1].id) as watch:
                assert await queue.cancel(jobs[1].id) is Status.RUNNING
                await watch.wait(5)
        assert not listening.done()
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await notifier.close()


@pytest.mark.anyio
async def test_a_node_that_is_no_cluster_says_so(redis_url: str) -> None:
    async with opened(redis_url.replace("redis://", "redis+cluster://")) as queue:
        with pytest.raises(RedisUnavailable, match="cluster support disabled"):
            await queue.ping()


@pytest.mark.anyio
async def test_11_a_cluster_that_is_silent_or_gone_fails_every_call_in_time(cluster: Cluster) -> None:
    nodes, url = cluster
    async with opened(url, redis_timeout_s=0.5) as queue:
        await reached(queue)
        for node in nodes:
            node.process.send_signal(signal.SIGSTOP)
        await every_call_fails(queue, limit_s=1.5)
        for node in nodes:
            node.kill()
        await every_call_fails(queue, limit_s=1.5)
