"""``import vqd``: whoever is interrupted while waiting leaves no job behind."""

import asyncio
import gc
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pytest
from commands import started
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)

import vqd
from service.client.dialogue import LEAVE_S, Ask
from service.client.job import JobFacts
from service.messages import Status

WAITS = """
import sys, vqd
with vqd.Client(sys.argv[1]) as client:
    client.generate("a red circle")
"""
STREAMS = """
import sys, vqd
for event in vqd.Client(sys.argv[1]).stream("a red circle"):
    print(event)
"""
AWAITED = """
import asyncio, sys, vqd
async def main():
    async with vqd.AsyncClient(sys.argv[1]) as client:
        await client.generate("a red circle")
asyncio.run(main())
"""
SUBMITS = """
import sys, vqd
vqd.Client(sys.argv[1]).submit("a red circle")
"""
Wanted = Callable[[vqd.AsyncClient], Coroutine[Any, Any, object]]


def states(gateway: RunningGateway) -> set[str]:
    """Of all jobs; whether a worker had taken one by the time it was cancelled is a matter of chance."""
    return {job["status"] for job in gateway.http.get("/jobs", params={"limit": 100}).json()["data"]}


async def becomes(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def generating(client: vqd.AsyncClient) -> None:
    await client.generate("a red circle")


async def submitting(client: vqd.AsyncClient) -> None:
    await client.submit("a red circle")


async def streaming(client: vqd.AsyncClient) -> None:
    async for _ in client.stream("a red circle"):
        pass


async def leaving(client: vqd.AsyncClient) -> None:
    async for _ in client.stream("a red circle"):
        break
    await asyncio.sleep(60)


async def failing_inside(client: vqd.AsyncClient) -> None:
    async with await client.submit("a red circle"):
        raise LookupError


@pytest.mark.parametrize("program", [WAITS, STREAMS, AWAITED], ids=["waits", "streams", "awaited"])
def test_an_interrupt_cancels_the_job(
    program: str, gateway: RunningGateway, worker: TinyWorker, tmp_path: Path
) -> None:
    worker.hold.set()
    with started("-c", program, gateway.url, cwd=tmp_path) as process:
        until(lambda: gateway.gateway.feeds.listeners == 1, limit_s=60)
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate(timeout=30)[1]
    assert until(lambda: worker.ended) == {worker.taken[0]: Status.CANCELLED}


@pytest.mark.anyio
@pytest.mark.parametrize("wanted", [generating, streaming, leaving])
async def test_a_task_that_is_cancelled_cancels_its_job(
    wanted: Wanted, gateway: RunningGateway, worker: TinyWorker
) -> None:
    worker.hold.set()
    async with vqd.AsyncClient(gateway.url) as client:
        task = asyncio.create_task(wanted(client))
        await becomes(lambda: worker.taken and (gateway.gateway.feeds.listeners or wanted is leaving))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await becomes(lambda: worker.ended)
    assert worker.ended == {worker.taken[0]: Status.CANCELLED}


@pytest.mark.anyio
async def test_a_block_that_ends_in_an_error_cancels_its_job(gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.hold.set()
    async with vqd.AsyncClient(gateway.url) as client:
        with pytest.raises(LookupError):
            await failing_inside(client)
    until(lambda: states(gateway) == {"cancelled"})
    with vqd.Client(gateway.url) as blocking:
        with pytest.raises(LookupError), blocking.submit("a red circle") as other:
            raise LookupError
        until(lambda: other.refresh().over)
        with blocking.submit("a red circle") as kept:
            pass
        assert not kept.refresh().over, "left without an error it goes on"


@pytest.fixture
def unanswered(gateway: RunningGateway, worker: TinyWorker) -> Iterator[None]:
    """The first job is accepted, and its client is not told; the worker makes no end of it."""
    enqueue, over, met = gateway.gateway.submissions.enqueue, threading.Event(), []

    async def and_wait(*job: Any, **more: Any) -> object:
        accepted = await enqueue(*job, **more)
        met.append(accepted)
        while len(met) == 1 and not over.is_set():
            await asyncio.sleep(0.01)
        return accepted

    gateway.gateway.submissions.enqueue = and_wait
    worker.hold.set()
    yield
    over.set()


@pytest.mark.usefixtures("unanswered")
@pytest.mark.parametrize("program", [WAITS, STREAMS, SUBMITS, AWAITED], ids=["waits", "streams", "submits", "awaited"])
def test_an_interrupt_cancels_a_job_whose_id_is_not_known_yet(
    program: str, gateway: RunningGateway, worker: TinyWorker, tmp_path: Path
) -> None:
    with started("-c", program, gateway.url, cwd=tmp_path) as process:
        until(lambda: worker.taken, limit_s=60)
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate(timeout=30)[1]
    assert until(lambda: worker.ended) == {worker.taken[0]: Status.CANCELLED}
    assert len(worker.taken) == 1


@pytest.mark.anyio
@pytest.mark.usefixtures("unanswered")
@pytest.mark.parametrize("wanted", [generating, streaming, submitting])
async def test_a_task_cancels_a_job_whose_id_it_does_not_know_yet(
    wanted: Wanted, gateway: RunningGateway, worker: TinyWorker
) -> None:
    async with vqd.AsyncClient(gateway.url) as client:
        task = asyncio.create_task(wanted(client))
        await becomes(lambda: worker.taken)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await becomes(lambda: worker.ended)
    assert worker.ended == {worker.taken[0]: Status.CANCELLED}
    assert len(worker.taken) == 1


def test_who_leaves_waits_for_no_more_than_a_moment() -> None:
    asked = []

    def answer(ask: Ask) -> httpx.Response:
        asked.append(ask)
        job = {"id": "1", "status": "queued"}
        return httpx.Response(202, json=job, request=httpx.Request(ask.method, "http://service"))

    with vqd.Client("http://service") as client:
        client.carry_out = answer  # type: ignore[method-assign,assignment]
        with pytest.raises(LookupError), client.submit("a red circle"):
            raise LookupError
    assert asked[-1] == Ask("DELETE", "/jobs/1", {"timeout": LEAVE_S})


def test_who_leaves_several_jobs_waits_for_a_silent_service_once() -> None:
    asked = []

    def answer(ask: Ask) -> httpx.Response:
        asked.append(ask.method)
        if ask.method == "DELETE":
            raise httpx.ReadTimeout("")
        job = {"id": "1", "status": "queued"}
        return httpx.Response(202, json=job, request=httpx.Request(ask.method, "http://service"))

    with vqd.Client("http://service") as client:
        client.carry_out = answer  # type: ignore[method-assign,assignment]
        with pytest.raises(LookupError), client.submit("a"), client.submit("b"), client.submit("c"):
            raise LookupError
    assert asked == ["POST"] * 3 + ["DELETE"]


def test_who_leaves_a_service_that_has_gone_hears_of_nothing_else() -> None:
    with vqd.Client("http://127.0.0.1:1") as client:
        carry_out = client.carry_out

        def interrupted(_: object) -> object:
            client.carry_out = carry_out  # type: ignore[method-assign]
            raise KeyboardInterrupt

        client.carry_out = interrupted  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            client.submit("a red circle")


def test_no_moment_is_between_a_job_and_what_cancels_it(gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.hold.set()
    known: list[object] = []

    def interrupt(frame: FrameType, kind: str, _: object) -> None:
        if known:
            sys.settrace(None)
            raise KeyboardInterrupt
        if frame.f_code is JobFacts.__init__.__code__:
            known.append(kind)

    with vqd.Client(gateway.url) as client:
        sys.settrace(interrupt)
        try:
            with pytest.raises(KeyboardInterrupt):
                client.generate("a red circle")
        finally:
            sys.settrace(None)
        (job,) = client.jobs()
        until(lambda: job.refresh().over)
        assert job.status is Status.CANCELLED


def test_a_job_whose_answer_never_came_is_withdrawn_in_time() -> None:
    asked = []

    def silent(ask: Ask) -> httpx.Response:
        asked.append(ask)
        raise httpx.ReadTimeout("timed out")

    with vqd.Client("http://service") as client:
        client.carry_out = silent  # type: ignore[method-assign,assignment]
        with pytest.raises(vqd.Unavailable, match="does not answer: timed out"):
            client.generate("a red circle", timeout_s=0)
    first, again = asked
    assert 0 < first.options["timeout"] <= 1, "a second later than it was wanted"
    assert again == Ask("POST", "/generate", {**first.options, "timeout": LEAVE_S})


@pytest.mark.anyio
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # asyncio's, now and then, of one cancelled
@pytest.mark.parametrize("wanted", [generating, streaming])
async def test_at_whatever_moment_a_task_is_cancelled_no_job_goes_on(
    wanted: Wanted, gateway: RunningGateway, worker: TinyWorker
) -> None:
    worker.hold.set()
    async with vqd.AsyncClient(gateway.url) as client:
        for number in range(40):
            task = asyncio.create_task(wanted(client))
            await asyncio.sleep(number / 1000)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    until(lambda: states(gateway) == {"cancelled"})
    assert len(gateway.http.get("/jobs").json()["data"]) > 10
    gc.collect()  # here, where it is no error
