"""The worker's view of Triton against the shipped fake: turns, and what is asked only once."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import numpy as np
import pytest
from fleet import SHAPES
from prometheus_client import CollectorRegistry

from service.condition import Condition
from service.engine.inference import Inference
from service.engine.prompts import Tokenised
from service.engine.turns import Turns
from service.errors import InferenceFailed, TritonTimeout, TritonUnavailable
from service.telemetry.metrics import TRITON_ERRORS, WorkerMetrics
from service.testing.fake_triton import FakeTriton, token_out_of_range
from service.triton.client import TritonClient
from service.triton.contract import StepBatch, StepOutput, diffusion_step

pytestmark = pytest.mark.anyio

NULL = Tokenised(np.zeros(SHAPES.text_positions, np.int32), np.zeros(SHAPES.text_positions, np.int32))
RED, BLUE = (replace(NULL, ids=NULL.ids + word, mask=NULL.mask + 1) for word in (3, 4))


@pytest.fixture
async def fake() -> AsyncIterator[FakeTriton]:
    async with FakeTriton(SHAPES) as server:
        yield server


def inference_on(fake: FakeTriton, calls_in_flight: int = 1, timeout_s: float = 10.0) -> Inference:
    triton, turns = TritonClient(fake.url, timeout_s), Turns(calls_in_flight)
    return Inference(triton, turns, WorkerMetrics(CollectorRegistry()), max_batch=4)


def errors(subject: Inference) -> dict[str, float | None]:
    sample = subject.metrics.registry.get_sample_value
    return {kind: sample("vqd_triton_errors_total", {"kind": kind}) for kind in TRITON_ERRORS}


class Noting(TritonClient):
    """Keeps what limit it was given."""

    limit_s: float | None = 0.0

    async def step(self, batch: StepBatch, limit_s: float | None = None) -> StepOutput:
        self.limit_s = limit_s
        return await super().step(batch, limit_s)


@pytest.mark.parametrize(("expected_s", "limit_s"), [(None, 60.0), (0.01, 10.0), (2.0, 40.0)])
async def test_a_step_may_take_many_times_what_it_usually_does_and_no_more(
    fake: FakeTriton, expected_s: float | None, limit_s: float
) -> None:
    """A Triton that hangs is known by it, long before the time-out."""
    triton = Noting(fake.url)
    subject = Inference(triton, Turns(1), WorkerMetrics(CollectorRegistry()), max_batch=4)
    await subject.step(StepBatch(**diffusion_step(Condition.TEXT).sample(SHAPES)), expected_s)
    assert triton.limit_s == limit_s
    await triton.close()


async def test_a_text_is_encoded_once_and_every_text_gets_its_own_states(fake: FakeTriton) -> None:
    subject = inference_on(fake)
    first, _ = await subject.encode([RED, NULL])
    second, _ = await subject.encode([BLUE, NULL, RED, NULL])
    await subject.triton.close()
    assert [len(call.inputs["input_ids"]) for call in fake.calls] == [2, 1]
    assert all((states == first[1]).all() for states in (second[1], second[3]))
    assert (second[2] == first[0]).all()
    assert not (second[0] == first[0]).all()


async def test_more_texts_than_a_batch_holds_come_back_in_order(fake: FakeTriton) -> None:
    subject = inference_on(fake)
    words = [replace(NULL, ids=NULL.ids + word, mask=NULL.mask + 1) for word in range(6)]
    states, _ = await subject.encode([*words, words[0]])
    again = [(await subject.encode([word]))[0][0] for word in words]
    await subject.triton.close()
    assert [len(call.inputs["input_ids"]) for call in fake.calls] == [4, 2]
    assert all((one == other).all() for one, other in zip(states, [*again, again[0]], strict=True))
    assert not (states[2] == states[0]).all()


@pytest.mark.parametrize("calls_in_flight", [1, 2])
async def test_calls_take_turns(fake: FakeTriton, calls_in_flight: int) -> None:
    """Encoding and decoding have one together, and as long as they have it, or wait for it, it is none of a step's."""
    subject = inference_on(fake, calls_in_flight)
    fake.delay_s = 0.02
    async with subject.turns.shared():
        assert subject.turns.free is (calls_in_flight == 2)
        await asyncio.gather(subject.encode([RED]), subject.decode(np.zeros((1, 64), np.int32)))
        assert subject.turns.free is (calls_in_flight == 2)
    assert fake.most_under_way == 2
    assert subject.turns.free
    await subject.turns.take()
    waiting = asyncio.create_task(subject.encode([BLUE]))
    await subject.step(StepBatch(**diffusion_step(Condition.TEXT).sample(SHAPES)))
    assert not waiting.done() or calls_in_flight == 2
    subject.turns.give_back()
    await waiting
    await subject.triton.close()


async def test_errors_are_counted_by_kind(fake: FakeTriton) -> None:
    subject, batch = inference_on(fake, timeout_s=0.3), StepBatch(**diffusion_step(Condition.TEXT).sample(SHAPES))
    await subject.step(batch)
    fake.fail_next(code=grpc.StatusCode.UNAVAILABLE)
    await subject.step(batch)
    assert errors(subject) == {"unavailable": 1, "timeout": 0, "invalid": 0}
    fake.corrupt_next(token_out_of_range)
    with pytest.raises(InferenceFailed):
        await subject.step(batch)
    assert errors(subject) == {"unavailable": 1, "timeout": 0, "invalid": 1}
    fake.hang()
    with pytest.raises(TritonUnavailable):
        await subject.check()
    assert errors(subject) == {"unavailable": 1, "timeout": 1, "invalid": 1}
    fake.resume()
    await subject.triton.close()


async def test_a_calls_time_is_that_of_the_try_that_succeeds(fake: FakeTriton) -> None:
    subject, batch = inference_on(fake), StepBatch(**diffusion_step(Condition.TEXT).sample(SHAPES))
    await subject.step(batch)
    fake.fail_next(2, code=grpc.StatusCode.UNAVAILABLE)
    began = time.monotonic()
    _, seconds = await subject.step(batch)
    pauses_s = 0.05 + 0.1  # the shortest that with_retries makes
    assert seconds < time.monotonic() - began - pauses_s
    await subject.triton.close()


async def test_a_slow_model_has_longer_than_the_setting_says(fake: FakeTriton) -> None:
    """What a check took of one row tells of the first call, and what calls took of the next ones."""
    sample = diffusion_step(Condition.TEXT).sample(SHAPES, rows=4)
    subject, batch = inference_on(fake, timeout_s=0.3), StepBatch(**sample)
    fake.delay_s = 0.1
    await subject.check()
    fake.delay_s = 0.4
    await subject.step(batch)
    await subject.decode(np.zeros((4, SHAPES.tokens), np.int32))
    subject.pace.row_s.clear()
    await subject.step(batch, expected_s=0.4)
    with pytest.raises(TritonTimeout, match=r"within 0\.3 s"):
        await subject.step(batch, expected_s=0.01)
    await subject.triton.close()


async def test_calls_at_the_same_time_count_once_as_model_time(fake: FakeTriton) -> None:
    subject, began = inference_on(fake, calls_in_flight=2), time.monotonic()
    fake.delay_s = 0.2
    await asyncio.gather(subject.encode([RED]), subject.decode(np.zeros((1, 64), np.int32)))
    counted = subject.metrics.registry.get_sample_value("vqd_model_seconds_total")
    assert counted is not None
    assert 0.2 <= counted <= time.monotonic() - began
    await subject.triton.close()
