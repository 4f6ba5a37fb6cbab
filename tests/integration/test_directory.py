"""Which models the gateway believes to be served, and how often it asks."""

import asyncio
from typing import cast

import pytest
from queue_support import worker_info

from service.errors import NotFound, Unavailable
from service.gateway.directory import Directory
from service.queue.registrations import Registrations
from service.serving import WorkerInfo

pytestmark = pytest.mark.anyio


class Told:
    """Registrations that the test writes; each reading takes a moment."""

    def __init__(self, *models: str) -> None:
        self.workers_told, self.reads = [serving(model) for model in models], 0

    async def workers(self) -> list[WorkerInfo]:
        self.reads += 1
        await asyncio.sleep(0.01)
        return self.workers_told

    async def was_served(self, model: str) -> bool:
        return model == "left"


def serving(model: str) -> WorkerInfo:
    info = worker_info(f"worker of {model}")
    return info.model_copy(update={"model": info.model.model_copy(update={"name": model})})


def directory(told: Told, max_age_s: float = 60.0) -> Directory:
    return Directory(cast(Registrations, told), max_age_s)


async def test_callers_share_a_reading_and_what_it_gave() -> None:
    told = Told("a")
    subject = directory(told)
    await asyncio.gather(*(subject.workers() for _ in range(10)))
    await subject.workers()
    assert told.reads == 1


async def test_an_old_reading_is_made_again() -> None:
    told = Told("a")
    subject = directory(told, max_age_s=0)
    await subject.workers()
    told.workers_told = []
    assert await subject.workers() == []


async def test_a_caller_that_leaves_does_not_end_the_reading_of_the_others() -> None:
    subject = directory(Told("a"))
    leaving, staying = [asyncio.create_task(subject.workers()) for _ in range(2)]
    await asyncio.sleep(0)
    leaving.cancel()
    assert len(await staying) == 1


async def test_no_reading_outlives_the_directory() -> None:
    subject = directory(Told("a"))
    asking = asyncio.create_task(subject.workers())
    await asyncio.sleep(0)
    asking.cancel()
    await subject.close()
    assert subject.reading is not None
    assert subject.reading.cancelled()
    await directory(Told("a")).close()  # that was never asked


async def test_a_request_may_leave_the_model_out_only_where_there_is_one() -> None:
    assert (await directory(Told("a")).pick(None)).name == "a"
    with pytest.raises(NotFound, match="several"):
        await directory(Told("a", "b")).pick(None)
    with pytest.raises(Unavailable):
        await directory(Told()).pick(None)


async def test_the_model_that_is_named_is_the_one_that_is_taken() -> None:
    assert (await directory(Told("a", "b")).pick("b")).name == "b"
    with pytest.raises(NotFound, match="'c'"):
        await directory(Told("a")).pick("c")


async def test_a_model_whose_last_worker_has_left_may_come_back() -> None:
    with pytest.raises(Unavailable, match="'left' is registered; its last one has left"):
        await directory(Told("a")).pick("left")
