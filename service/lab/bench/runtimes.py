"""The network alone in several runtimes on the CPU: what each makes of tokens, timestep and memory.

ONNX Runtime and OpenVINO are imported where they are built, for only who measures them has them.
"""

import threading
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from service.export.precision import Precision
from service.lab.bench.loaded import onnx_session
from service.triton.contract import Float32


class Inputs(NamedTuple):
    """tokens INT64 [B, L], timestep INT64 [B], memory [blocks, 2, B, heads, S, d] in the network's dtype."""

    tokens: Tensor
    timestep: Tensor
    memory: Tensor

    def cut(self, parts: int) -> list["Inputs"]:
        return [
            Inputs(tokens, timestep, memory.contiguous())
            for tokens, timestep, memory in zip(
                self.tokens.chunk(parts), self.timestep.chunk(parts), self.memory.chunk(parts, 2), strict=True
            )
        ]


class Case(NamedTuple):
    """What a runtime is built of. ``calls`` run at once, each with ``threads``; ``folder``: for its files."""

    network: nn.Module
    dtype: Precision
    example: Inputs
    folder: Path
    calls: int
    threads: int


Call: TypeAlias = Callable[[Inputs], Float32]
"""Logits [B, L, K]. It may be called by several Python threads at once."""
NAMES = Inputs._fields


def dynamic_batch(case: Case) -> dict[str, dict[int, Any]]:
    batch = torch.export.Dim("batch", min=1, max=64)
    return {"tokens": {0: batch}, "timestep": {0: batch}, "memory": {2: batch}}


def torchscript(case: Case) -> Call:
    """As `vqd export` has it."""
    scripted = torch.jit.script(case.network)
    return lambda inputs: numbers(scripted(*inputs))


def compiled(case: Case) -> Call:
    """It compiles at the first call, for as many threads as operators have then."""
    module = torch.compile(case.network, dynamic=True)
    return lambda inputs: numbers(module(*inputs))


def aot_inductor(case: Case) -> Call:
    program = torch.export.export(case.network, tuple(case.example), dynamic_shapes=dynamic_batch(case))
    package = case.folder / f"{case.dtype}-{case.threads}.pt2"
    loaded = torch._inductor.aoti_load_package(
        torch._inductor.aoti_compile_and_package(program, package_path=str(package))
    )
    return lambda inputs: numbers(loaded(*inputs))


def numbers(logits: Tensor) -> Float32:
    found: Float32 = logits.numpy()
    return found


def onnx_file(case: Case) -> Path:
    """In float32, written once."""
    path = case.folder / "network.onnx"
    if not path.exists():
        torch.onnx.export(
            case.network,
            tuple(case.example),
            str(path),
            input_names=list(NAMES),
            dynamic_shapes=dynamic_batch(case),
            opset_version=20,
            dynamo=True,
            verbose=False,
        )
    return path


def onnx_runtime(case: Case) -> Call:
    return onnx_call(onnx_file(case), case.threads)


def onnx_runtime_int8(case: Case) -> Call:
    """Weights in int8, activations quantised by what each batch holds: a row's bits depend on its batch."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

    small = case.folder / "network-int8.onnx"
    if not small.exists():
        quantize_dynamic(onnx_file(case), small, weight_type=QuantType.QInt8)
    return onnx_call(small, case.threads)


def onnx_call(path: Path, threads: int) -> Call:
    session = onnx_session(path, threads)

    def call(inputs: Inputs) -> Float32:
        feed = {name: tensor.numpy() for name, tensor in zip(NAMES, inputs, strict=True)}
        logits: Float32 = session.run(None, feed)[0]
        return logits

    return call


def openvino(case: Case) -> Call:
    """A stream for each call at once. The numbers that go in and come out are float32 in any dtype."""
    import openvino as ov  # noqa: PLC0415

    options = {
        "INFERENCE_PRECISION_HINT": {Precision.FP32: "f32", Precision.BF16: "bf16"}[case.dtype],
        "INFERENCE_NUM_THREADS": case.calls * case.threads,
        "NUM_STREAMS": case.calls,
    }
    model = ov.Core().compile_model(ov.Core().read_model(onnx_file(case)), "CPU", options)
    requests = threading.local()

    def call(inputs: Inputs) -> Float32:
        if not hasattr(requests, "own"):
            requests.own = model.create_infer_request()
        requests.own.infer([tensor.numpy() for tensor in inputs])
        return np.array(requests.own.get_output_tensor(0).data)

    return call


class Runtime(NamedTuple):
    """``takes``: for each dtype that it computes in, that of the network that it is built of. ``needs``: programs and
    packages."""

    build: Callable[[Case], Call]
    takes: Mapping[Precision, Precision]
    needs: tuple[str, ...] = ()

    def lacks(self) -> list[str]:
        """What this machine has not."""
        return [name for name in self.needs if not (which(name) or find_spec(name))]


OWN = {Precision.FP32: Precision.FP32, Precision.BF16: Precision.BF16}
FROM_FP32 = {Precision.FP32: Precision.FP32, Precision.BF16: Precision.FP32}
ONLY_FP32 = {Precision.FP32: Precision.FP32}
ONNX = ("onnx", "onnxscript")
RUNTIMES = {
    "TorchScript": Runtime(torchscript, OWN),
    "torch.compile": Runtime(compiled, OWN, ("g++",)),
    "AOTInductor": Runtime(aot_inductor, OWN, ("g++",)),
    "ONNX Runtime": Runtime(onnx_runtime, ONLY_FP32, (*ONNX, "onnxruntime")),
    "ONNX Runtime int8": Runtime(onnx_runtime_int8, ONLY_FP32, (*ONNX, "onnxruntime")),
    "OpenVINO": Runtime(openvino, FROM_FP32, (*ONNX, "openvino")),
}
"""ONNX Runtime has no products in bfloat16 on x86."""
