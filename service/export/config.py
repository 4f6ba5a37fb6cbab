"""Each model's config.pbtxt, from the contract's table: Triton's own message in its text format."""

import json
from enum import StrEnum
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from service.triton.contract import EACH_EVALUATION, STEP, Model, Shapes, Tensor

WARM_SIZES = (1, 2, 4, 8, 16)


class Backend(StrEnum):
    """What ``vqd export --backend`` takes."""

    PYTHON = "python"
    PYTORCH = "pytorch"
    AOTI = "aoti"
    ONNX = "onnx"
    TENSORRT = "tensorrt"

    @property
    def compiled(self) -> bool:
        """Whether the step is one of a compiler, which takes one evaluation at a time."""
        return self is Backend.AOTI or self.onnx

    @property
    def onnx(self) -> bool:
        """Whether its models are written as ONNX."""
        return self in (Backend.ONNX, Backend.TENSORRT)

    def of(self, model: str) -> tuple[str, str]:
        """Backend and platform of a model's config, as Triton calls them."""
        if self in (Backend.PYTHON, Backend.AOTI):
            return "python", ""
        if self is Backend.PYTORCH:
            return "pytorch", "pytorch_libtorch"
        if self is Backend.TENSORRT and model == STEP:
            return "tensorrt", "tensorrt_plan"
        return "onnxruntime", "onnxruntime_onnx"


def render_config(model: Model, shapes: Shapes, backend: Backend, threads: int = 0, fingerprint: str = "") -> str:
    """The text of ``model_config``."""
    message = model_config(model, shapes, backend, threads, fingerprint)
    text: str = text_format.MessageToString(message, use_short_repeated_primitives=True)
    return text


def model_config(model: Model, shapes: Shapes, backend: Backend, threads: int = 0, fingerprint: str = "") -> Any:
    """A ModelConfig message. ``threads``: what the python backend's torch may use, 0 for every core.
    ``fingerprint``: of the export, which the worker compares.

    There is no dynamic batching and no queue timeout: the client sends whole batches, and Triton 2.51 dies of the two
    together.
    """
    name, platform = backend.of(model.name)
    config = model_config_pb2.ModelConfig(
        name=model.name,
        backend=name,
        platform=platform,
        max_batch_size=shapes.max_batch_size,
        input=[{"name": t.name, "data_type": type_of(t), "dims": shapes.resolve(t.dims)} for t in model.inputs],
        output=[{"name": t.name, "data_type": type_of(t), "dims": shapes.resolve(t.dims)} for t in model.outputs],
        instance_group=[{"count": 1, "kind": "KIND_AUTO"}],
    )
    config.parameters["codes"].string_value = str(shapes.codes)
    config.parameters["classes"].string_value = str(shapes.classes)
    if fingerprint:
        config.parameters["fingerprint"].string_value = fingerprint
    sizes = warm_sizes(shapes)
    if name != "python":
        config.model_warmup.extend(warm_up(model, shapes, rows) for rows in sizes)
        return config
    sample = {tensor.name: [tensor.sample_value(shapes), tensor.sample_dims(shapes)] for tensor in model.inputs}
    each = [tensor.name for tensor in model.inputs if tensor.name in EACH_EVALUATION]
    # What the shared model.py reads.
    for name, value in (("threads", threads), ("warm_sizes", sizes), ("sample", sample), ("each_evaluation", each)):
        config.parameters[name].string_value = json.dumps(value)
    return config


def type_of(tensor: Tensor) -> str:
    return f"TYPE_{tensor.dtype}"


def warm_sizes(shapes: Shapes) -> list[int]:
    """Batch sizes to warm up: TorchScript optimises anew for each."""
    return sorted({size for size in WARM_SIZES if size <= shapes.max_batch_size} | {shapes.max_batch_size})


def warm_up(model: Model, shapes: Shapes, rows: int) -> Any:
    """Triton's own warm-up: it joins so many one-row requests; each tensor of a row is a file in NAME/warmup/."""
    # Twice: TorchScript profiles the first run and optimises in the second.
    warmup = model_config_pb2.ModelWarmup(name=f"rows {rows}", batch_size=rows, count=2)
    for tensor in model.inputs:
        entry = warmup.inputs[tensor.name]
        entry.data_type = model_config_pb2.DataType.Value(type_of(tensor))
        entry.dims.extend(tensor.sample_dims(shapes))
        entry.input_data_file = tensor.name
    return warmup
