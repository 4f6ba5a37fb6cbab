"""The key that floods in `vqd bench flood`: what of it is under way, and what becomes of the rest."""

import asyncio

import httpx
import pytest

from service.lab.bench.flood import CONNECTIONS, Flood

pytestmark = pytest.mark.anyio


async def test_what_waits_for_a_connection_when_it_is_over_is_not_asked() -> None:
    """httpx would be asked to hold it in line, which takes the longer for each the more there are."""
    flood, answer, asked = Flood(), asyncio.Event(), []

    async def service(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        await answer.wait()
        return httpx.Response(429, headers={"Retry-After": "1"})

    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(service), base_url="http://service") as client,
        asyncio.timeout(30),
    ):
        flooding = asyncio.create_task(flood.run(client, rate=1e6))
        while len(asked) < CONNECTIONS:
            await asyncio.sleep(0)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert len(asked) == CONNECTIONS
        flood.over.set()
        answer.set()
        await flooding
    assert len(asked) == flood.answers[429] == CONNECTIONS
    assert flood.without_retry_after == 0
