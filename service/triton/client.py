"""The only importer of tritonclient: typed, bounded, checked calls to the served models.

The wait for an answer is bounded here and the call itself is left to end: Triton 2.51 dies of cancelled calls and of
short deadlines.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from service.condition import Condition
from service.errors import InferenceFailed, TritonTimeout, TritonUnavailable
from service.serving import ModelInfo
from service.triton.channel import OPTIONS, Channel
from service.triton.contract import (
    IMAGE_DECODER,
    IMAGE_ENCODER,
    STEP,
    TEXT_ENCODER,
    Array,
    Float16,
    Int32,
    Model,
    Shapes,
    StepBatch,
    StepOutput,
    UInt8,
    diffusion_step,
    models_of,
)

T = TypeVar("T")

WORTH_A_RETRY = {"StatusCode.UNAVAILABLE", "StatusCode.CANCELLED", "StatusCode.DEADLINE_EXCEEDED"}
# The server is broken, not the request: a python stub that died is never restarted; one that stops unloads its models.
SICK = ("stub process", "failed to initialize python stub", "has no available versions", "is not ready")


class TritonClient:
    """A client of one Triton server, for one event loop.

    Every method raises TritonUnavailable (no connection, no answer in time, server gone: worth another try) or
    InferenceFailed (the server answered, and the answer is an error or breaks the contract).
    """

    def __init__(self, url: str, timeout_s: float = 60.0, expected: ModelInfo | None = None) -> None:
        """``expected``: the only model that is any use; with another, every call raises TritonUnavailable."""
        self.url, self.timeout_s, self.expected = url, timeout_s, expected
        self.channel: Channel | None = None
        self.known_shapes: Shapes | None = None
        self.retired: set[asyncio.Task[None]] = set()

    async def encode(self, input_ids: Int32, attention_mask: Int32) -> Float16:
        """[B,S] ids and mask → [B,S,D] states."""
        states = (await self.infer(TEXT_ENCODER, {"input_ids": input_ids, "attention_mask": attention_mask}))["states"]
        require_finite(TEXT_ENCODER, states)
        return cast(Float16, states)

    async def step(self, batch: StepBatch, limit_s: float | None = None) -> StepOutput:
        """k evaluations of B rows, each call within ``limit_s`` if that is given, else within the usual limit.

        It is one call, but for a step that takes fewer evaluations: there it is as many as it takes.
        """
        shapes = await self.shapes()
        if shapes.evaluations < 0:
            return await self.step_call(batch, shapes, limit_s)
        output = StepOutput(batch.tokens, np.zeros(batch.tokens.shape, np.float16))
        for part in batch.parts(shapes.evaluations):
            output = await self.step_call(replace(part, tokens=output.tokens), shapes, limit_s)
        return output

    async def step_call(self, batch: StepBatch, shapes: Shapes, limit_s: float | None) -> StepOutput:
        model, codes = diffusion_step(shapes.condition), shapes.codes
        outputs = await self.infer(model, batch.arrays(), limit_s)
        tokens, purity = cast(Int32, outputs["tokens_out"]), cast(Float16, outputs["purity"])
        if tokens.min() < 0 or tokens.max() > codes:
            raise InferenceFailed(f"diffusion_step gave tokens {tokens.min()}…{tokens.max()}, allowed are 0…{codes}")
        require_finite(model, purity)
        return StepOutput(tokens, purity)

    async def decode(self, tokens: Int32, limit_s: float | None = None) -> UInt8:
        """[B,L] codes → [B,H,W,3] pictures."""
        return cast(UInt8, (await self.infer(IMAGE_DECODER, {"tokens": tokens}, limit_s))["image"])

    async def encode_image(self, image: UInt8, limit_s: float | None = None) -> Int32:
        """[B,H,W,3] pictures → [B,L] codes."""
        codes = (await self.shapes()).codes
        tokens = cast(Int32, (await self.infer(IMAGE_ENCODER, {"image": image}, limit_s))["tokens"])
        if tokens.min() < 0 or tokens.max() >= codes:
            raise InferenceFailed(f"image_encoder gave tokens {tokens.min()}…{tokens.max()}, allowed are 0…{codes - 1}")
        return tokens

    async def check(self, limit_s: float | None = None) -> dict[str, float]:
        """One row through each model: the only health that counts, as a dead stub leaves Triton "ready".

        Returns the seconds that each took.
        """
        shapes, seconds = await self.shapes(), {}
        for model in models_of(shapes.condition):
            began = time.monotonic()
            await self.infer(model, model.sample(shapes), limit_s)
            seconds[model.name] = time.monotonic() - began
        return seconds

    async def shapes(self) -> Shapes:
        """The served model's sizes, from the server's own configs; asked once per channel."""
        if self.known_shapes is None:
            try:
                self.known_shapes = await self.read_served()
            except TritonUnavailable as error:
                error.reached = False  # no inference was under way
                raise
        return self.known_shapes

    async def read_served(self) -> Shapes:
        """Raises TritonUnavailable when it is not the expected model that is served."""
        configs = {name: await self.config(name) for name in (STEP, IMAGE_DECODER.name)}
        shapes = read_shapes(*configs.values())
        others = [model.name for model in models_of(shapes.condition) if model.name not in configs]
        configs |= {name: await self.config(name) for name in others}
        if self.expected and (wrong := differences(self.expected, shapes, configs)):
            raise TritonUnavailable(f"Triton at {self.url} serves another model than {self.expected.name}: {wrong}")
        return shapes

    async def config(self, name: str) -> Any:
        """The ModelConfig message of a served model."""
        return (await self.call(lambda client: client.get_model_config(name))).config

    async def infer(self, model: Model, arrays: Mapping[str, Array], limit_s: float | None = None) -> dict[str, Array]:
        """One call; the outputs by name, held against the contract."""
        shapes = await self.shapes()
        inputs = infer_inputs(model, arrays)
        result = await self.call(lambda client: client.infer(model.name, inputs), limit_s)
        return read_outputs(model, result, shapes, rows=len(next(iter(arrays.values()))))

    async def call(self, send: Callable[[Any], Coroutine[Any, Any, Any]], limit_s: float | None = None) -> Any:
        """Run one RPC on the present channel, which is given up when it fails."""
        channel = self.channel = self.channel or Channel(self.url)
        limit_s = limit_s or self.timeout_s
        task = channel.start(send(channel.client))
        try:
            await asyncio.wait({task}, timeout=limit_s)
            if not task.done():
                raise TritonTimeout(f"Triton at {self.url} gave no answer within {limit_s:.3g} s", reached=True)
            if task.cancelled():
                raise TritonUnavailable(f"the connection to Triton at {self.url} was closed", reached=True)
            return answer_of(task, self.url)
        except TritonUnavailable:
            self.give_up(channel)
            raise

    def give_up(self, channel: Channel) -> None:
        """The next call opens another channel; this one is closed when its last call has ended."""
        if self.channel is not channel:
            return
        self.channel = self.known_shapes = None
        closing = asyncio.create_task(channel.close(), name="triton channel closing")
        self.retired.add(closing)
        closing.add_done_callback(self.retired.discard)

    async def close(self, limit_s: float = 5.0) -> None:
        """Let calls under way end, at most ``limit_s``; what still hangs then is dropped."""
        if self.channel:
            self.give_up(self.channel)
        if self.retired:
            _, hanging = await asyncio.wait(set(self.retired), timeout=limit_s)
            for task in hanging:
                task.cancel()


def serves(url: str, limit_s: float) -> bool:
    """Whether the server answers a real inference of each model now; blocking, for whoever just started it."""
    with triton.InferenceServerClient(url, channel_args=OPTIONS) as client:
        try:
            names = (STEP, IMAGE_DECODER.name)
            shapes = read_shapes(*[client.get_model_config(name, client_timeout=limit_s).config for name in names])
            for model in models_of(shapes.condition):
                client.infer(model.name, infer_inputs(model, model.sample(shapes)), client_timeout=limit_s)
        except InferenceServerException as error:
            if isinstance(translated(error, url), TritonUnavailable):
                return False
            raise translated(error, url) from error
        return True


def infer_inputs(model: Model, arrays: Mapping[str, Array]) -> list[Any]:
    """Raises InferenceFailed for a dtype that the wire does not carry."""
    inputs = []
    for tensor in model.inputs:
        array = np.ascontiguousarray(arrays[tensor.name])
        if array.dtype != tensor.dtype.numpy:
            raise InferenceFailed(f"{model.name}: {tensor.name} is {array.dtype}, the contract has {tensor.dtype}")
        entry = triton.InferInput(tensor.name, list(array.shape), tensor.dtype.value)
        entry.set_data_from_numpy(array)
        inputs.append(entry)
    return inputs


def read_outputs(model: Model, result: Any, shapes: Shapes, rows: int) -> dict[str, Array]:
    """Raises InferenceFailed when an output is missing or has another dtype or shape."""
    outputs: dict[str, Array] = {}
    for tensor in model.outputs:
        array = result.as_numpy(tensor.name)
        if array is None or not tensor.fits(array, shapes, rows):
            got = "nothing" if array is None else f"{array.dtype} {list(array.shape)}"
            raise InferenceFailed(f"{model.name} gave {got} as {tensor.name}, which breaks the contract")
        outputs[tensor.name] = array
    return outputs


def read_shapes(step: Any, decoder: Any) -> Shapes:
    """From two ModelConfig messages: ``diffusion_step`` and ``image_decoder``."""
    dims = {entry.name: entry.dims for entry in step.input}
    condition = Condition.TEXT if "contexts" in dims else Condition.LABEL if "labels" in dims else Condition.NONE
    _, positions, width = dims.get("contexts", (-1, 0, 0))
    image_height, image_width, _ = decoder.output[0].dims
    return Shapes(
        tokens=dims["tokens"][0],
        text_positions=positions,
        text_width=width,
        codes=int(step.parameters["codes"].string_value),
        image_height=image_height,
        image_width=image_width,
        max_batch_size=step.max_batch_size,
        condition=condition,
        classes=int(step.parameters["classes"].string_value or 0),
        evaluations=dims["timestep"][0],
    )


def differences(expected: ModelInfo, shapes: Shapes, configs: Mapping[str, Any]) -> str:
    """What the served model has that ``expected`` has not, in words; empty when they are the same export."""
    wrong = [
        f"{name} {getattr(shapes, name)} instead of {getattr(expected, name)}"
        for name in ("condition", "tokens", "codes", "classes", "text_positions", "image_width", "image_height")
        if getattr(shapes, name) != getattr(expected, name)
    ]
    prints = {name: config.parameters["fingerprint"].string_value for name, config in configs.items()}
    wrong += [f"{name} is of another export" for name, print in prints.items() if print != expected.fingerprint]
    return "; ".join(wrong)


def require_finite(model: Model, values: Float16) -> None:
    if not np.isfinite(values).all():
        raise InferenceFailed(f"{model.name} gave NaN or infinity")


def answer_of(task: asyncio.Task[T], url: str) -> T:
    try:
        return task.result()
    except InferenceServerException as error:
        raise translated(error, url) from error


def translated(error: InferenceServerException, url: str) -> TritonUnavailable | InferenceFailed:
    text = str(error.message())
    if error.status() in WORTH_A_RETRY or any(mark in text.lower() for mark in SICK):
        return TritonUnavailable(f"Triton at {url}: {text}", reached="failed to connect" not in text)
    return InferenceFailed(f"Triton at {url}: {text}")
