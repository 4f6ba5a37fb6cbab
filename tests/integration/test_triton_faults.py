"""What the Triton client makes of each way to fail, and which connection it gives up: against the shipped fake."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from service.condition import Condition
from service.engine.inference import Inference
from service.engine.turns import Turns
from service.errors import InferenceFailed, TritonTimeout, TritonUnavailable
from service.telemetry.metrics import WorkerMetrics
from service.testing.fake_triton import UNLOADING, FakeTriton
from service.triton.client import TritonClient, serves
from service.triton.contract import Shapes, StepBatch, diffusion_step
from service.triton.retries import with_retries

pytestmark = pytest.mark.anyio

SHAPES = Shapes(tokens=16, text_positions=6, text_width=4, codes=10, image_height=8, image_width=12, max_batch_size=4)
BATCH = StepBatch(**diffusion_step(Condition.TEXT).sample(SHAPES))


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


@pytest.mark.parametrize(
    "words",
    ["Stub process 'diffusion_step_0_0' is not healthy.", "Failed to initialize Python stub", UNLOADING.message],
)
async def test_a_stub_that_died_or_never_began_is_the_servers_fault(
    fake: FakeTriton, client: TritonClient, words: str
) -> None:
    fake.fail_next(message=words)
    with pytest.raises(TritonUnavailable):
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


def twice(outputs: dict[str, Any]) -> dict[str, Any]:
    return {name: np.concatenate([array, array]) for name, array in outputs.items()}


@pytest.mark.parametrize("model", ["text_encoder", "diffusion_step", "image_decoder"])
async def test_an_answer_for_other_rows_than_were_asked_is_refused(
    fake: FakeTriton, client: TritonClient, model: str
) -> None:
    fake.corrupt_next(twice, model=model)
    with pytest.raises(InferenceFailed, match="breaks the contract"):
        await client.check()


async def test_height_and_width_are_not_mistaken(client: TritonClient) -> None:
    assert await client.shapes() == SHAPES
    assert (await client.decode(np.zeros((1, SHAPES.tokens), np.int32))).shape == (1, 8, 12, 3)


@pytest.mark.parametrize(("timeout_s", "limit_s"), [(0.3, None), (10.0, 0.3), (0.05, 0.3)])
async def test_the_wait_for_an_answer_is_as_long_as_it_was_set(
    fake: FakeTriton, timeout_s: float, limit_s: float | None
) -> None:
    client = TritonClient(fake.url, timeout_s)
    await client.shapes()
    fake.hang()
    began_s = time.monotonic()
    with pytest.raises(TritonTimeout):
        await client.step(BATCH, limit_s)
    assert 0.3 <= time.monotonic() - began_s < 2
    fake.resume()
    await client.close()


async def test_the_pause_between_tries_doubles_up_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses_s = []

    async def pause(seconds: float) -> None:
        pauses_s.append(seconds)

    async def fail() -> None:
        raise TritonUnavailable("gone")

    monkeypatch.setattr(asyncio, "sleep", pause)
    monkeypatch.setattr(random, "uniform", lambda least, most: most)
    with pytest.raises(TritonUnavailable):
        await with_retries(fail, attempts=6, pause_s=1, longest_pause_s=5)
    assert pauses_s == [1, 2, 4, 5, 5]


async def test_who_killed_triton_is_told_by_the_first_try() -> None:
    """Those after it find no server."""
    errors = iter([TritonUnavailable("died", reached=True), TritonUnavailable("failed to connect")])

    async def fail() -> None:
        raise next(errors)

    with pytest.raises(TritonUnavailable, match="failed to connect") as caught:
        await with_retries(fail, attempts=2, pause_s=0)
    assert caught.value.reached


async def test_who_was_silent_for_too_long_is_not_asked_again() -> None:
    errors = iter([TritonUnavailable("gone"), TritonTimeout("silent")])

    async def fail() -> None:
        raise next(errors)

    with pytest.raises(TritonTimeout, match="silent"):
        await with_retries(fail, attempts=3, pause_s=0)


class Leaving(FakeTriton):
    """Tells no sizes any more."""

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        await context.abort(CODE.UNAVAILABLE, "leaving")


async def test_an_inference_that_was_under_way_may_be_to_blame(fake: FakeTriton, client: TritonClient) -> None:
    fake.fail_next(code=CODE.UNAVAILABLE)
    with pytest.raises(TritonUnavailable) as caught:
        await client.step(BATCH)
    assert caught.value.reached


async def test_an_inference_that_found_no_server_is_not_to_blame() -> None:
    client = TritonClient("127.0.0.1:1")
    client.known_shapes = SHAPES
    with pytest.raises(TritonUnavailable) as caught:
        await client.step(BATCH)
    assert not caught.value.reached
    await client.close()


async def test_nor_is_one_that_was_still_to_be_sent() -> None:
    async with Leaving(SHAPES) as fake:
        client = TritonClient(fake.url)
        with pytest.raises(TritonUnavailable, match="leaving") as caught:
            await client.step(BATCH)
        assert not caught.value.reached
        await client.close()


class Doorman(FakeTriton):
    """Knows the address of each caller."""

    def __init__(self) -> None:
        super().__init__(SHAPES)
        self.callers: list[str] = []

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        self.callers.append(context.peer())
        return await super().ModelInfer(request, context)


async def test_a_retry_comes_over_another_connection() -> None:
    """The first one may be what hangs; it stays open for the call that is still under way."""
    async with Doorman() as fake:
        client = TritonClient(fake.url, timeout_s=0.3)
        await client.shapes()
        fake.hang()
        with pytest.raises(TritonTimeout):
            await client.step(BATCH)
        client.timeout_s = 10
        second = asyncio.create_task(client.step(BATCH))
        async with asyncio.timeout(10):
            while len(fake.callers) < 2:
                await asyncio.sleep(0.01)
        fake.resume()
        await second
        await client.close()
    assert len(set(fake.callers)) == 2


async def test_what_was_answered_is_not_kept(fake: FakeTriton, client: TritonClient) -> None:
    """A connection lasts for weeks, and each answer may hold pictures."""
    for _ in range(3):
        await client.step(BATCH)
    assert client.channel is not None
    assert not client.channel.calls


async def test_the_blocking_check_raises_what_a_model_answers(fake: FakeTriton) -> None:
    fake.fail_next(message="matrix is singular")
    with pytest.raises(InferenceFailed, match="singular"):
        await asyncio.to_thread(serves, fake.url, 5)


async def test_a_failed_call_is_no_sign_of_life(fake: FakeTriton, client: TritonClient) -> None:
    subject = Inference(client, Turns(1), WorkerMetrics(CollectorRegistry()), max_batch=4)
    fake.fail_next()
    with pytest.raises(InferenceFailed):
        await subject.step(BATCH)
    assert subject.last_success == 0
    await subject.step(BATCH)
    assert subject.last_success > 0
