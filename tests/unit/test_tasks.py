"""Tasks beside the requests: what one dies of is heard."""

import asyncio

import pytest

from service.gateway.tasks import cancel_tasks, in_background

pytestmark = pytest.mark.anyio


async def fail() -> None:
    raise RuntimeError("a bug")


async def test_what_a_task_dies_of_is_logged_while_it_is_still_held(caplog: pytest.LogCaptureFixture) -> None:
    task = in_background("feed of job a", fail())
    await asyncio.wait({task})
    await asyncio.sleep(0)  # its callbacks
    assert [record.message for record in caplog.records] == ["background task feed of job a died"]
    assert "RuntimeError: a bug" in caplog.text


async def test_a_task_that_is_ended_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    await cancel_tasks(in_background("feed of job a", asyncio.sleep(60)))
    assert not caplog.records
