"""What the Triton client makes of each way to fail, and which connection it gives up: against the shipped fake."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from service.errors import InferenceFailed, TritonUnavailable
from service.testing.fake_triton import FakeTriton
from service.triton.client import TritonClient
from service.triton.contract import DIFFUSION_STEP, Shapes, StepBatch

pytestmark = pytest.mark.anyio

SHAPES = Shapes(tokens=16, text_positions=6, text_width=4, codes=10, image_height=8, image_width=8, max_batch_size=4)
BATCH = StepBatch(**DIFFUSION_STEP.sample(SHAPES))


@pytest.fixture
async def fake() -> AsyncIterator[FakeTriton]:
    async with FakeTriton(SHAPES) as server:
        yield server


@pytest.fixture
async def client(fake: FakeTriton) -> AsyncIterator[TritonClient]:
    triton = TritonClient(fake.url, timeout_s=10)
    yield triton
    await triton.close()


CODE = grpc.StatusCode


@pytest.mark.parametrize("code", [CODE.UNAVAILABLE, CODE.CANCELLED, CODE.DEADLINE_EXCEEDED])
async def test_a_server_that_cannot_answer_is_worth_a_retry(
    fake: FakeTriton, client: TritonClient, code: grpc.StatusCode
) -> None:
    fake.fail_next(code=code)
    with pytest.raises(TritonUnavailable):
        await client.step(BATCH)
    await client.step(BATCH)


@pytest.mark.parametrize("code", [CODE.INTERNAL, CODE.INVALID_ARGUMENT, CODE.UNKNOWN])
async def test_an_answer_that_is_an_error_is_not(fake: FakeTriton, client: TritonClient, code: grpc.StatusCode) -> None:
    fake.fail_next(code=code)
    with pytest.raises(InferenceFailed):
        await client.step(BATCH)


def giving(token: int, place: int = 3) -> Any:
    """Outputs with ``token`` at one place, among codes."""

    def corrupt(outputs: dict[str, Any]) -> dict[str, Any]:
        tokens = np.zeros_like(outputs["tokens_out"])
        tokens[0, place] = token
        return {**outputs, "tokens_out": tokens}

    return corrupt


@pytest.mark.parametrize("token", [0, SHAPES.codes - 1, SHAPES.codes])
async def test_every_code_and_the_mask_are_tokens(fake: FakeTriton, client: TritonClient, token: int) -> None:
    fake.corrupt_next(giving(token))
    assert (await client.step(BATCH)).tokens[0, 3] == token


@pytest.mark.parametrize("token", [-1, SHAPES.codes + 1])
async def test_what_is_next_to_them_is_not(fake: FakeTriton, client: TritonClient, token: int) -> None:
    fake.corrupt_next(giving(token))
    with pytest.raises(InferenceFailed, match=r"allowed are 0…10"):
        await client.step(BATCH)


async def test_a_second_failure_on_one_connection_leaves_the_fresh_one_alone(
    fake: FakeTriton, client: TritonClient
) -> None:
    await client.shapes()
    fake.delay_s = 0.1  # one after the other
    fake.fail_next(2, code=CODE.UNAVAILABLE)
    first, second = [asyncio.create_task(client.step(BATCH)) for _ in range(2)]
    with pytest.raises(TritonUnavailable):
        await first
    await client.shapes()
    fresh = client.channel
    assert fresh is not None
    assert not second.done()
    with pytest.raises(TritonUnavailable):
        await second
    assert client.channel is fresh


async def test_no_call_begins_on_a_connection_that_failed(fake: FakeTriton, client: TritonClient) -> None:
    await client.step(BATCH)
    failed = client.channel
    fake.fail_next(code=CODE.UNAVAILABLE)
    with pytest.raises(TritonUnavailable):
        await client.step(BATCH)
    await client.step(BATCH)
    assert client.channel is not failed


async def test_sizes_are_asked_again_on_a_fresh_connection(fake: FakeTriton, client: TritonClient) -> None:
    """Behind it may be another server."""
    await client.step(BATCH)
    fake.fail_next(code=CODE.UNAVAILABLE)
    with pytest.raises(TritonUnavailable):
        await client.step(BATCH)
    fake.shapes = replace(SHAPES, codes=12)
    assert (await client.shapes()).codes == 12
