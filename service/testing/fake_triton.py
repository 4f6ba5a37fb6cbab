"""The one fake of Triton: a real gRPC server in this process, the same models in cheap, exact arithmetic.

No torch. Behaviour that tests choose: ``delay_s``, ``hang()``, ``fail_next()``, ``corrupt_next()``; for calls that
carry something, ``fail_when()``; for all of them, ``sicken()``. Each is what the real server was seen to do.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)

from service.export.config import Backend, model_config
from service.triton.contract import Array, Float16, Int32, Model, Shapes, Tensor, UInt8, models_of

Arrays = dict[str, Array]


@dataclass(frozen=True)
class Call:
    """An inference that the fake was asked for."""

    model: str
    inputs: Mapping[str, Array]

    @property
    def rows(self) -> int:
        return len(next(iter(self.inputs.values())))


@dataclass(frozen=True)
class Failure:
    code: grpc.StatusCode
    message: str


Corruption = Callable[[Arrays], Arrays]
Wanted = Callable[[Call], bool]
DIES = "dies"
"""A fault of ``fail_when``: the whole server goes, and comes back after ``restart_s`` as a supervised one does."""
UNLOADING = Failure(grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'diffusion_step' has no available versions")
"""What a server answers for seconds after SIGTERM."""
STICKY = Failure(grpc.StatusCode.INTERNAL, "CUDA error: an illegal memory access was encountered")
"""What every call gets after a fault of the device, until the server is restarted."""


class FakeTriton(GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Serves a model of ``shapes`` on a loopback port, of the export ``fingerprint``. As in Triton, each model does one
    call at a time."""

    def __init__(self, shapes: Shapes, port: int = 0) -> None:
        self.shapes, self.port = shapes, port
        self.fingerprint = ""
        self.delay_s = 0.0
        self.calls: list[Call] = []
        self.cancelled = 0
        self.under_way = self.most_under_way = 0
        self.faults: dict[str, deque[Failure | Corruption]] = defaultdict(deque)
        self.rules: list[tuple[Wanted, Failure | Corruption | str]] = []
        self.sickness: Failure | None = None
        self.restart_s, self.deaths = 0.2, 0
        self.dying: asyncio.Task[None] | None = None
        self.answering = asyncio.Event()
        self.answering.set()
        self.models = {model.name: model for model in models_of(shapes.condition)}
        self.locks = {name: asyncio.Lock() for name in self.models}
        self.server: Any = None

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    def hang(self) -> None:
        """Calls get no answer until ``resume()``."""
        self.answering.clear()

    def resume(self) -> None:
        self.answering.set()

    def fail_next(
        self,
        calls: int = 1,
        model: str = "diffusion_step",
        code: grpc.StatusCode = grpc.StatusCode.INTERNAL,
        message: str = "injected failure",
    ) -> None:
        """UNAVAILABLE is what a dying server gives; INTERNAL is what a failing model gives."""
        self.faults[model].extend([Failure(code, message)] * calls)

    def corrupt_next(self, corruption: Corruption, calls: int = 1, model: str = "diffusion_step") -> None:
        """Pass the next outputs through ``nan_purity``, ``token_out_of_range`` or any such function."""
        self.faults[model].extend([corruption] * calls)

    def fail_when(self, wanted: Wanted, fault: Failure | Corruption | str) -> None:
        """Every inference that is ``wanted`` meets the fault, which may be DIES."""
        self.rules.append((wanted, fault))

    def sicken(self, sickness: Failure | None) -> None:
        """What every inference of any model is answered with, checks too; None: well again."""
        self.sickness = sickness

    async def die(self) -> None:
        self.deaths += 1
        await self.stop()
        await asyncio.sleep(self.restart_s)
        await self.start()

    async def start(self) -> None:
        """Listen, on the port of the last time when there was one."""
        self.server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)])
        add_GRPCInferenceServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port(self.url)
        await self.server.start()

    async def stop(self) -> None:
        """Drop every call under way, as a server that is killed."""
        await self.server.stop(None)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def ServerReady(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerReadyResponse(ready=True)

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        model = await self.find(request.name, context)
        config = model_config(model, self.shapes, Backend.PYTHON, fingerprint=self.fingerprint)
        return service_pb2.ModelConfigResponse(config=config)

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        model = await self.find(request.model_name, context)
        inputs = await self.read(request, model, context)
        call = Call(model.name, inputs)
        self.calls.append(call)
        await self.take_time(model)
        fault = self.fault_of(call)
        if fault == DIES and (self.dying is None or self.dying.done()):
            self.dying = asyncio.create_task(self.die(), name="fake Triton dies")
        if fault == DIES:
            await asyncio.Event().wait()  # until the server is gone
        if isinstance(fault, Failure):
            await context.abort(fault.code, fault.message)
        outputs = ARITHMETIC[model.name](inputs, self.shapes)
        return response_of(model, fault(outputs) if callable(fault) else outputs)

    def fault_of(self, call: Call) -> Failure | Corruption | str | None:
        if self.sickness:
            return self.sickness
        for wanted, fault in self.rules:
            if wanted(call):
                return fault
        return self.faults[call.model].popleft() if self.faults[call.model] else None

    async def take_time(self, model: Model) -> None:
        """Wait as told. ``cancelled`` counts calls given up meanwhile, which the real server may not survive."""
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            async with self.locks[model.name]:
                await self.answering.wait()
                await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1

    async def find(self, name: str, context: Any) -> Model:
        if name in self.models:
            return self.models[name]
        return await context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model {name!r}")  # type: ignore[no-any-return]

    async def read(self, request: Any, model: Model, context: Any) -> Arrays:
        """The inputs by name; the call is refused as Triton refuses it when they break the contract."""
        arrays: Arrays = {}
        expected = {tensor.name: tensor for tensor in model.inputs}
        for entry, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            tensor = expected.get(entry.name)
            array = None if tensor is None else as_array(tensor, entry, raw)
            rows = entry.shape[0] if entry.shape else 0
            if tensor is None or array is None or not tensor.fits(array, self.shapes, rows):
                await self.refuse(context, f"unexpected input {entry.name!r} {entry.datatype} {list(entry.shape)}")
                continue
            arrays[entry.name] = array
        sizes = {len(array) for array in arrays.values()}
        if set(arrays) != set(expected) or len(sizes) != 1 or not 1 <= min(sizes) <= self.shapes.max_batch_size:
            await self.refuse(context, f"inputs {sorted(arrays)} with batch sizes {sorted(sizes)}")
        return arrays

    async def refuse(self, context: Any, message: str) -> None:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)


def as_array(tensor: Tensor, entry: Any, raw: bytes) -> Array | None:
    if entry.datatype != tensor.dtype:
        return None
    return np.frombuffer(raw, tensor.dtype.numpy).reshape(list(entry.shape))


def response_of(model: Model, outputs: Arrays) -> Any:
    response = service_pb2.ModelInferResponse(model_name=model.name, model_version="1")
    for tensor in model.outputs:
        array = np.ascontiguousarray(outputs[tensor.name])
        response.outputs.add(name=tensor.name, datatype=tensor.dtype.value, shape=list(array.shape))
        response.raw_output_contents.append(array.tobytes())
    return response


def encode(inputs: Arrays, shapes: Shapes) -> Arrays:
    """states[b,s,d] = ((31 id + 7 s + d) mod 97) / 97; a row without any mask gets -1, the "learned null"."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    s, d = np.arange(shapes.text_positions), np.arange(shapes.text_width)
    mixed = (31 * ids.astype(np.int64)[..., None] + 7 * s[:, None] + d) % 97
    states: Float16 = (mixed.astype(np.float32) / np.float32(97)).astype(np.float16)
    states[~mask.any(1)] = -1
    return {"states": states}


def step(inputs: Arrays, shapes: Shapes) -> Arrays:
    """Each evaluation commits masked positions in order of uniforms[…,1], with code ⌊uniforms[…,0] K⌋.

    ``reveal`` says how many; at -1 it is the share (t - s) / (t + 1) of those still masked, all of them for s = -1.
    """
    tokens = np.where(inputs["pinned"] >= 0, inputs["pinned"], inputs["tokens"]).astype(np.int32)
    uniforms = inputs["uniforms"]
    for row in range(len(tokens)):
        for k in range(uniforms.shape[1]):
            t, s, reveal = (int(inputs[name][row, k]) for name in ("timestep", "timestep_next", "reveal"))
            commit(tokens[row], uniforms[row, k], t, s, reveal, shapes.codes)
    purity: Float16 = (1 - uniforms[:, -1, :, 0] / 2).astype(np.float16)
    return {"tokens_out": tokens, "purity": purity}


def commit(tokens: Int32, uniforms: Array, t: int, s: int, reveal: int, codes: int) -> None:
    masked = np.flatnonzero(tokens == codes)
    count = reveal if reveal >= 0 else -(-len(masked) * (t - s) // (t + 1))
    chosen = masked[np.argsort(uniforms[masked, 1], kind="stable")][:count]
    tokens[chosen] = np.minimum(uniforms[chosen, 0] * np.float32(codes), codes - 1)


def decode(inputs: Arrays, shapes: Shapes) -> Arrays:
    """Equal runs of pixels per token; red, green and blue are the code times 37, 74 and 111, modulo 256."""
    pixels = shapes.image_height * shapes.image_width
    source = np.arange(pixels) * shapes.tokens // pixels
    codes = inputs["tokens"].astype(np.int64)[:, source]
    colours: UInt8 = (codes[..., None] * np.array([37, 74, 111]) % 256).astype(np.uint8)
    return {"image": colours.reshape(-1, shapes.image_height, shapes.image_width, 3)}


def read_image(inputs: Arrays, shapes: Shapes) -> Arrays:
    """The code whose colour ``decode`` would have given the first pixel of each position's run."""
    red = inputs["image"].reshape(len(inputs["image"]), -1, 3)[:, :, 0]
    pixels = shapes.image_height * shapes.image_width
    first = -(-np.arange(shapes.tokens) * pixels // shapes.tokens)
    inverse = np.zeros(256, np.int32)
    inverse[np.arange(256) * 37 % 256] = np.arange(256)
    return {"tokens": np.minimum(inverse[red[:, first]], shapes.codes - 1).astype(np.int32)}


ARITHMETIC: dict[str, Callable[[Arrays, Shapes], Arrays]] = {
    "text_encoder": encode,
    "diffusion_step": step,
    "image_decoder": decode,
    "image_encoder": read_image,
}


def nan_purity(outputs: Arrays) -> Arrays:
    return {**outputs, "purity": np.full_like(outputs["purity"], np.nan)}


def mask_left(codes: int) -> Corruption:
    """A position stays masked although all evaluations are done."""

    def corrupt(outputs: Arrays) -> Arrays:
        tokens = outputs["tokens_out"].copy()
        tokens[:, 0] = codes
        return {**outputs, "tokens_out": tokens}

    return corrupt


def token_out_of_range(outputs: Arrays) -> Arrays:
    return {**outputs, "tokens_out": np.full_like(outputs["tokens_out"], 2**31 - 1)}
