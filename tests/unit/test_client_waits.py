"""A wait that ends before an event came: what the service says of the job then."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

import vqd
from service.client.dialogue import Ask

URL = "http://service"
QUEUED = {"id": "1", "status": "queued"}


def answer(ask: Ask, status: str) -> httpx.Response:
    return httpx.Response(200, json={"id": "1", "status": status, "images": []}, request=httpx.Request("GET", URL))


@pytest.mark.parametrize("status", ["succeeded", "running"])
def test_a_job_that_is_over_is_not_said_to_run(status: str) -> None:
    def listen(_: object) -> Iterator[vqd.Event]:
        raise vqd.StillRunning("not done in time")
        yield

    with vqd.Client(URL) as client:
        client.listen = listen  # type: ignore[method-assign,assignment]
        client.carry_out = lambda ask: answer(ask, status)  # type: ignore[method-assign,assignment]
        job = vqd.Job(client, QUEUED)
        if status == "succeeded":
            assert job.wait(timeout_s=0).id == "1"
        else:
            with pytest.raises(vqd.StillRunning, match="not done in time"):
                job.wait(timeout_s=0)


@pytest.mark.anyio
@pytest.mark.parametrize("status", ["succeeded", "running"])
async def test_nor_by_the_client_that_is_awaited(status: str) -> None:
    async def listen(_: object) -> AsyncIterator[vqd.Event]:
        raise vqd.StillRunning("not done in time")
        yield

    async def carry_out(ask: Ask) -> httpx.Response:
        return answer(ask, status)

    async with vqd.AsyncClient(URL) as client:
        client.listen = listen  # type: ignore[method-assign,assignment]
        client.carry_out = carry_out  # type: ignore[method-assign,assignment]
        job = vqd.AsyncJob(client, QUEUED)
        if status == "succeeded":
            assert (await job.wait(timeout_s=0)).id == "1"
        else:
            with pytest.raises(vqd.StillRunning, match="not done in time"):
                await job.wait(timeout_s=0)
