"""Promise 12: in durable mode a job is accepted only when a replica has it; with a real primary, replica and cut."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from gateway_harness import MODEL, RunningGateway, TinyWorker, until
from queue_support import EVALUATIONS, make_job, opened
from redis_groups import Line, Node, followed

from service.errors import NotDurable, RedisUnavailable
from service.messages import Priority, Status
from service.queue import keys
from service.queue.submissions import Idempotency
from service.settings import Settings

ANSWER_S = 2.0
ACTIVE = keys.active(MODEL.name, Priority.INTERACTIVE)


class Pair:
    """A primary, and its replica at the other end of a line."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.primary = stack.enter_context(Node(folder / "primary"))
        self.line = stack.enter_context(Line(self.primary.port))
        of = f"127.0.0.1 {self.line.port}"
        self.replica = stack.enter_context(Node(folder / "replica", replicaof=of))
        until(lambda: followed(self.primary))


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(tmp_path, stack)


@pytest.fixture
def served(pair: Pair) -> Iterator[tuple[RunningGateway, TinyWorker]]:
    settings = Settings(redis_url=pair.primary.url, durable_replicas=1, lease_ms=60_000)
    gateway, worker = RunningGateway(settings), TinyWorker(settings)
    yield gateway, worker
    worker.close()
    gateway.close()


def test_12_nothing_is_accepted_while_the_replica_is_cut_off(
    pair: Pair, served: tuple[RunningGateway, TinyWorker]
) -> None:
    gateway, worker = served
    assert gateway.ask().status_code == 200
    worker.hold.set()
    pair.line.cut()
    for _ in range(3):
        began_s = time.monotonic()
        answer = gateway.ask()
        assert time.monotonic() - began_s < ANSWER_S
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:vqd:problem:not-durable")
        assert answer.headers["Retry-After"]
    # A worker may have begun it meanwhile; it is withdrawn all the same.
    until(lambda: not gateway.gateway.withdrawals.jobs and pair.primary.ask("ZCARD", ACTIVE) == 0)
    assert Status.SUCCEEDED not in list(worker.ended.values())[1:]
    until(lambda: "replicas" in gateway.http.get("/readyz").text)
    assert gateway.ask().status_code == 503
    until(lambda: not gateway.gateway.withdrawals.jobs)
    assert int(pair.primary.ask("HGET", keys.COUNTERS, "cancelled")) == 3, "the last one was written and withdrawn, too"
    pair.line.heal()
    worker.hold.clear()
    until(lambda: gateway.ask().status_code == 200)
    assert gateway.http.get("/readyz").status_code == 200


def test_12_a_job_with_a_key_is_there_when_its_client_comes_again(
    pair: Pair, served: tuple[RunningGateway, TinyWorker]
) -> None:
    gateway, worker = served
    worker.hold.set()
    asked = {"json": {"prompt": "a red circle"}, "headers": {"Idempotency-Key": "mine", "Prefer": "respond-async"}}
    pair.line.cut()
    assert gateway.http.post("/generate", **asked).status_code == 503  # type: ignore[arg-type]
    assert gateway.http.post("/generate", **asked).status_code == 503  # type: ignore[arg-type]
    pair.line.heal()
    answers = []

    def accepted() -> bool:
        answers.append(gateway.http.post("/generate", **asked))  # type: ignore[arg-type]
        return answers[-1].status_code == 202

    until(accepted)
    assert answers[-1].headers["Idempotent-Replayed"] == "true"
    assert pair.replica.ask("HGET", keys.job(answers[-1].json()["id"]), "status") == b"running"
    worker.hold.clear()


def test_12_every_accepted_job_survives_its_primary(pair: Pair, served: tuple[RunningGateway, TinyWorker]) -> None:
    gateway, worker = served
    worker.stop()
    accepted = [gateway.start(seed=seed) for seed in range(100)]
    pair.primary.kill()
    pair.replica.ask("REPLICAOF", "NO", "ONE")
    assert {job_id.decode() for job_id in pair.replica.ask("ZRANGE", ACTIVE, 0, -1)} == set(accepted)
    waiting = pair.replica.ask("ZRANGE", keys.order(MODEL.name, "interactive"), 0, -1)
    assert [job_id.decode() for job_id in waiting] == accepted


def test_12_a_silent_primary_is_told_in_time(pair: Pair, served: tuple[RunningGateway, TinyWorker]) -> None:
    gateway, worker = served
    assert gateway.ask().status_code == 200
    worker.stop()
    gateway.gateway.directory.max_age_s = 60
    pair.primary.process.send_signal(signal.SIGSTOP)
    try:
        answer = gateway.ask()
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:vqd:problem:redis-unavailable")
        assert answer.elapsed.total_seconds() < ANSWER_S
    finally:
        pair.primary.process.send_signal(signal.SIGCONT)


@pytest.mark.anyio
async def test_one_address_may_lead_to_another_server_tomorrow(pair: Pair) -> None:
    """As a managed Redis does it: the name stays, and connections to the old primary are to a replica."""
    with Line(pair.primary.port) as endpoint:
        async with opened(f"redis://127.0.0.1:{endpoint.port}") as queue:
            before, after = make_job(), make_job()
            await queue.enqueue(before, EVALUATIONS)
            endpoint.target = pair.replica.port
            pair.replica.ask("REPLICAOF", "NO", "ONE")
            pair.primary.ask("REPLICAOF", "127.0.0.1", pair.replica.port)
            assert (await queue.enqueue(after, EVALUATIONS))[:2] == (after.id, True)
            assert pair.replica.ask("EXISTS", keys.job(before.id), keys.job(after.id)) == 2


@pytest.mark.anyio
@pytest.mark.parametrize("again", ["with its key", "after a lost reply"])
async def test_12_a_repeated_request_waits_for_the_replica_too(pair: Pair, again: str) -> None:
    """WAIT promises something only about what its own connection wrote: so a repetition writes, too."""
    job = make_job()
    key = Idempotency("key", "payload") if again == "with its key" else None
    async with opened(pair.primary.url) as plain:
        pair.line.cut()
        await plain.enqueue(job, EVALUATIONS, key)
        repeated = make_job() if key else job
        written = pair.primary.ask("INFO", "replication")["master_repl_offset"]
        await plain.enqueue(repeated, EVALUATIONS, key)
        assert pair.primary.ask("INFO", "replication")["master_repl_offset"] > written
    async with opened(pair.primary.url, durable_replicas=1, durable_timeout_s=0.3) as durable:
        with pytest.raises(NotDurable, match="0 of the 1 replicas"):
            await durable.enqueue(repeated, EVALUATIONS, key)
        durable.store.doubtful = False
        pair.line.heal()
        assert (await durable.enqueue(repeated, EVALUATIONS, key))[:2] == (job.id, key is None)
        assert (await durable.view(job.id)).status is Status.QUEUED


@pytest.mark.anyio
async def test_more_replicas_than_there_are_and_none_asked_for(pair: Pair) -> None:
    async with opened(pair.primary.url, durable_replicas=2, durable_timeout_s=0.3) as two:
        with pytest.raises(NotDurable, match="1 of the 2 replicas"):
            await two.enqueue(make_job(), EVALUATIONS)
        with pytest.raises(NotDurable, match="1 of the 2 replicas"):
            await two.store.require_replicas()
    pair.line.cut()
    async with opened(pair.primary.url) as none:
        job = make_job()
        assert (await none.enqueue(job, EVALUATIONS))[:2] == (job.id, True)
        await none.store.require_replicas()


@pytest.mark.anyio
async def test_an_error_of_a_durable_enqueue_holds_no_prompt(pair: Pair) -> None:
    """redis-py puts the beginning of the command into the error of a pipeline."""
    async with opened(pair.primary.url, durable_replicas=1) as queue:
        await queue.enqueue(make_job(), EVALUATIONS)
        await queue.redis.config_set("min-replicas-to-write", 2)
        with pytest.raises(RedisUnavailable, match="good replicas") as raised:
            await queue.enqueue(make_job(), EVALUATIONS)
        assert "red square" not in repr(raised.value)
