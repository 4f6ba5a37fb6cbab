"""The Triton client against the shipped fake, over real gRPC: values, errors, timeouts, reconnection."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import fields, replace
from typing import Any

import grpc
import numpy as np
import pytest

from service.condition import Condition
from service.errors import InferenceFailed, TritonUnavailable
from service.sockets import free_port
from service.testing.fake_triton import FakeTriton, nan_purity, token_out_of_range
from service.triton.client import TritonClient, serves
from service.triton.contract import TEXT_ENCODER, Shapes, StepBatch, diffusion_step
from service.triton.retries import with_retries

pytestmark = pytest.mark.anyio

DIFFUSION_STEP = diffusion_step(Condition.TEXT)
SHAPES = Shapes(tokens=16, text_positions=6, text_width=4, codes=10, image_height=8, image_width=8, max_batch_size=4)


@pytest.fixture
async def fake() -> AsyncIterator[FakeTriton]:
    async with FakeTriton(SHAPES) as server:
        yield server


@pytest.fixture
async def client(fake: FakeTriton) -> AsyncIterator[TritonClient]:
    triton = TritonClient(fake.url, timeout_s=10)
    yield triton
    fake.resume()
    await triton.close()


def batch(rows: int = 1, k: int = 1, **values: Any) -> StepBatch:
    """The contract's sample for ``rows`` and ``k``, with random uniforms; ``values`` fill the named tensors."""
    arrays = DIFFUSION_STEP.sample(SHAPES, rows)
    per_evaluation = [tensor.name for tensor in DIFFUSION_STEP.inputs if tensor.dims[0] == "k"]
    arrays |= {name: np.repeat(arrays[name], k, axis=1) for name in per_evaluation}
    arrays["uniforms"] = np.random.default_rng(7).random((rows, k, SHAPES.tokens, 2), dtype=np.float32)
    return StepBatch(**arrays | {name: np.full_like(arrays[name], value) for name, value in values.items()})


def masked(tokens: np.ndarray[Any, Any]) -> int:
    return int((tokens == SHAPES.codes).sum())


def test_step_batch_is_the_contracts_table() -> None:
    every = {tensor.name for condition in Condition for tensor in diffusion_step(condition).inputs}
    assert {field.name for field in fields(StepBatch)} == every


async def test_shapes_come_from_the_server(client: TritonClient) -> None:
    assert await client.shapes() == SHAPES


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
async def test_a_proxy_of_the_environment_is_not_asked(
    variable: str, fake: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    client = TritonClient(fake.url, timeout_s=10)
    assert await client.shapes() == SHAPES
    await client.close()


async def test_step_reveals_what_it_is_told(client: TritonClient) -> None:
    one = await client.step(batch(rows=2, reveal=3))
    assert [masked(row) for row in one.tokens] == [13, 13]
    assert (one.tokens.dtype, one.purity.dtype, one.purity.shape) == (np.int32, np.float16, (2, 16))
    two = await client.step(batch(k=2, reveal=3))
    assert masked(two.tokens) == 10
    everything = await client.step(batch(reveal=-1, timestep=5, timestep_next=-1))
    assert masked(everything.tokens) == 0
    half = await client.step(batch(reveal=-1, timestep=7, timestep_next=3))
    assert masked(half.tokens) == 8


async def test_step_takes_position_and_code_from_the_uniforms(client: TritonClient) -> None:
    uniforms = np.full((1, 1, 16, 2), 0.9, np.float32)
    uniforms[0, 0, 5] = (0.37, 0.1)
    output = await client.step(replace(batch(reveal=1), uniforms=uniforms))
    assert output.tokens[0, 5] == 3
    assert masked(output.tokens) == 15


async def test_step_keeps_pinned_codes(client: TritonClient) -> None:
    pinned = np.full((1, 16), -1, np.int32)
    pinned[0, 2] = 4
    output = await client.step(replace(batch(reveal=0), pinned=pinned))
    assert output.tokens[0, 2] == 4


async def test_encode_and_decode(client: TritonClient) -> None:
    ids, mask = np.arange(12, dtype=np.int32).reshape(2, 6), np.ones((2, 6), np.int32)
    mask[1] = 0
    states = await client.encode(ids, mask)
    assert (states.shape, states.dtype) == ((2, 6, 4), np.float16)
    assert (states[1] == -1).all()
    assert (states[0] >= 0).all()
    image = await client.decode(np.arange(16, dtype=np.int32).reshape(1, 16) % 10)
    assert (image.shape, image.dtype) == ((1, 8, 8, 3), np.uint8)
    assert image[0, 0, 4].tolist() == [37, 74, 111]
    assert (await client.encode_image(image)).tolist() == [[i % 10 for i in range(16)]]


async def test_check_runs_every_model(fake: FakeTriton, client: TritonClient) -> None:
    await client.check()
    assert [call.model for call in fake.calls] == ["text_encoder", "diffusion_step", "image_decoder", "image_encoder"]


async def test_serves_is_the_blocking_check(fake: FakeTriton) -> None:
    assert await asyncio.to_thread(serves, fake.url, 5)
    await fake.stop()
    assert not await asyncio.to_thread(serves, fake.url, 5)


async def test_a_model_error_is_final(fake: FakeTriton, client: TritonClient) -> None:
    fake.fail_next(message="matrix is singular")
    with pytest.raises(InferenceFailed, match="matrix is singular"):
        await client.step(batch())
    await client.step(batch())


async def test_an_unavailable_server_is_worth_a_retry(fake: FakeTriton, client: TritonClient) -> None:
    fake.fail_next(2, code=grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(TritonUnavailable):
        await with_retries(lambda: client.step(batch()), attempts=2, pause_s=0.01)
    fake.fail_next(2, code=grpc.StatusCode.UNAVAILABLE)
    output = await with_retries(lambda: client.step(batch(reveal=3)), attempts=3, pause_s=0.01)
    assert masked(output.tokens) == 13


async def test_retries_leave_a_model_error_alone(fake: FakeTriton, client: TritonClient) -> None:
    fake.fail_next(1)
    with pytest.raises(InferenceFailed):
        await with_retries(lambda: client.step(batch()), attempts=3, pause_s=0.01)
    assert len(fake.calls) == 1


async def test_a_dead_stub_is_the_servers_fault(fake: FakeTriton, client: TritonClient) -> None:
    fake.fail_next(message="Stub process 'diffusion_step_0_0' is not healthy.")
    with pytest.raises(TritonUnavailable):
        await client.step(batch())


@pytest.mark.parametrize("corruption", [nan_purity, token_out_of_range])
async def test_values_out_of_contract_are_refused(
    fake: FakeTriton, client: TritonClient, corruption: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    fake.corrupt_next(corruption)
    with pytest.raises(InferenceFailed, match=r"NaN|allowed are 0…10"):
        await client.step(batch())


@pytest.mark.parametrize("token", [-1, SHAPES.codes])
async def test_a_picture_is_read_as_codes_alone(fake: FakeTriton, client: TritonClient, token: int) -> None:
    fake.corrupt_next(lambda outputs: {"tokens": np.full_like(outputs["tokens"], token)}, model="image_encoder")
    with pytest.raises(InferenceFailed, match=rf"tokens {token}…{token}, allowed are 0…9"):
        await client.encode_image(np.zeros((1, 8, 8, 3), np.uint8))


async def test_states_with_nan_are_refused(fake: FakeTriton, client: TritonClient) -> None:
    fake.corrupt_next(lambda outputs: {"states": np.full_like(outputs["states"], np.nan)}, model="text_encoder")
    sample = TEXT_ENCODER.sample(SHAPES)
    with pytest.raises(InferenceFailed, match="NaN"):
        await client.encode(sample["input_ids"], sample["attention_mask"])


async def test_a_wrong_output_shape_is_refused(fake: FakeTriton, client: TritonClient) -> None:
    fake.corrupt_next(lambda outputs: {**outputs, "purity": outputs["purity"][:, 1:]})
    with pytest.raises(InferenceFailed, match=r"float16 \[1, 15\] as purity"):
        await client.step(batch())


async def test_the_fake_refuses_what_triton_refuses(client: TritonClient) -> None:
    with pytest.raises(InferenceFailed, match="batch sizes"):
        await client.step(batch(rows=SHAPES.max_batch_size + 1))
    with pytest.raises(InferenceFailed, match="unexpected input 'tokens'"):
        await client.decode(np.zeros((1, 15), np.int32))
    with pytest.raises(InferenceFailed, match="tokens is int64"):
        await client.decode(np.zeros((1, 16), np.int64))  # type: ignore[arg-type]


async def test_a_hanging_server_bounds_the_wait_but_keeps_the_call(fake: FakeTriton) -> None:
    client = TritonClient(fake.url, timeout_s=0.2)
    await client.shapes()
    fake.hang()
    with pytest.raises(TritonUnavailable, match="no answer within"):
        await client.step(batch())
    [closing] = client.retired
    # A new connection works at once beside the abandoned call, which ends by itself; then its connection is closed.
    await client.shapes()
    assert not closing.done()
    fake.resume()
    await asyncio.wait_for(closing, 5)
    await client.step(batch())
    await client.close()
    assert fake.cancelled == 0


async def test_cancelling_the_caller_leaves_the_call_under_way(fake: FakeTriton, client: TritonClient) -> None:
    await client.shapes()
    fake.hang()
    caller = asyncio.create_task(client.step(batch()))
    async with asyncio.timeout(10):
        while not fake.calls:
            await asyncio.sleep(0.005)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert client.channel
    [call] = client.channel.calls
    fake.resume()
    await asyncio.wait_for(call, 5)
    assert fake.cancelled == 0


async def test_close_is_bounded(fake: FakeTriton) -> None:
    client = TritonClient(fake.url, timeout_s=0.1)
    await client.shapes()
    fake.hang()
    with pytest.raises(TritonUnavailable):
        await client.step(batch())
    await asyncio.wait_for(client.close(limit_s=0.1), 5)
    fake.resume()


async def test_no_server_is_unavailable() -> None:
    client = TritonClient("127.0.0.1:1", timeout_s=5)
    with pytest.raises(TritonUnavailable):
        await client.check()
    await client.close()


async def test_the_same_client_works_after_a_restart(fake: FakeTriton, client: TritonClient) -> None:
    await client.step(batch())
    await fake.stop()
    with pytest.raises(TritonUnavailable):
        await client.step(batch())
    await fake.start()
    output = await with_retries(lambda: client.step(batch(reveal=16)), attempts=5)
    assert masked(output.tokens) == 0


async def test_calls_of_one_model_queue_up(fake: FakeTriton, client: TritonClient) -> None:
    await client.shapes()
    fake.delay_s = 0.05
    started = asyncio.get_running_loop().time()
    await asyncio.gather(*(client.step(batch()) for _ in range(4)))
    assert asyncio.get_running_loop().time() - started >= 0.2
