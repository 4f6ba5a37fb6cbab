"""``import vqd``: whoever is interrupted while waiting leaves no job behind."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

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
Wanted = Callable[[vqd.AsyncClient], Coroutine[Any, Any, object]]


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
@pytest.mark.parametrize("wanted", [lambda client: client.generate("a red circle"), streaming, leaving])
async def test_a_task_that_is_cancelled_cancels_its_job(
    wanted: Wanted, gateway: RunningGateway, worker: TinyWorker
) -> None:
    worker.hold.set()
    async with vqd.AsyncClient(gateway.url) as client:
        task = asyncio.create_task(wanted(client))
        while not (worker.taken and (gateway.gateway.feeds.listeners or wanted is leaving)):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while not worker.ended:
            await asyncio.sleep(0.01)
    assert worker.ended == {worker.taken[0]: Status.CANCELLED}


@pytest.mark.anyio
async def test_a_block_that_ends_in_an_error_cancels_its_job(gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.hold.set()
    async with vqd.AsyncClient(gateway.url) as client:
        with pytest.raises(LookupError):
            await failing_inside(client)
        (job,) = await client.jobs()
        while (await job.refresh()).status is not Status.CANCELLED:
            await asyncio.sleep(0.01)
    with vqd.Client(gateway.url) as blocking:
        with pytest.raises(LookupError), blocking.submit("a red circle") as other:
            raise LookupError
        until(lambda: other.refresh().over)
        with blocking.submit("a red circle") as kept:
            pass
        assert not kept.refresh().over, "left without an error it goes on"
