"""``import vqd``: what was waited for when a client is closed."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from client_support import Aside
from gateway_harness import (  # noqa: F401  those in lower case but until are fixtures
    RunningGateway,
    TinyWorker,
    gateway_settings,
    running_gateway,
    tiny_worker,
    until,
)

import vqd

Wanted = Callable[[vqd.AsyncClient], Coroutine[Any, Any, object]]


def test_a_client_that_is_closed_cancels_what_its_waits_were_for(gateway: RunningGateway, worker: TinyWorker) -> None:
    worker.hold.set()
    client = vqd.Client(gateway.url)
    left = client.stream("a red circle")
    next(left)
    waiting = Aside(lambda: client.generate("a red circle"))
    until(lambda: gateway.gateway.feeds.listeners == 2)
    kept = client.submit("a red circle")
    client.close()
    with pytest.raises(vqd.VqdError, match=r"closed|was cancelled"):
        waiting.join()
    with pytest.raises(vqd.VqdError, match=r"^this client is closed: it asks for nothing more$"):
        client.generate("a red circle")
    with vqd.Client(gateway.url) as other:
        until(lambda: [job.over for job in other.jobs()].count(True) == 2)
        assert not other.job(kept.id).over, "what was submitted goes on"


async def leaving_in_a_block(client: vqd.AsyncClient) -> None:
    async with client:
        async for _ in client.stream("a red circle"):
            break


async def failing_beside(client: vqd.AsyncClient) -> None:
    async with client:
        with pytest.raises(vqd.InvalidRequest):
            await asyncio.gather(client.generate("a red circle"), client.generate("a red circle", n=1000))


@pytest.mark.parametrize("wanted", [leaving_in_a_block, failing_beside])
def test_nothing_goes_on_when_the_block_of_a_client_ends(
    wanted: Wanted, gateway: RunningGateway, worker: TinyWorker
) -> None:
    worker.hold.set()

    async def main() -> None:
        await wanted(vqd.AsyncClient(gateway.url))

    asyncio.run(main())
    until(lambda: [job["status"] for job in gateway.http.get("/jobs").json()["data"]] == ["cancelled"])
