"""The text of each model's config.pbtxt, from the contract's table."""

import json
from collections.abc import Iterable
from enum import StrEnum

from service.triton.contract import Model, Shapes, Tensor

WARM_SIZES = (1, 2, 4, 8, 16)


class Backend(StrEnum):
    PYTHON = "python"
    PYTORCH = "pytorch"


def render_config(model: Model, shapes: Shapes, backend: Backend, threads: int = 0) -> str:
    """A config.pbtxt. ``threads``: what the python backend's torch may use, 0 for every core.

    There is no dynamic batching and no queue timeout: the client sends whole batches, and Triton 2.51 dies of the two
    together.
    """
    sizes = warm_sizes(shapes)
    python = backend is Backend.PYTHON
    head = [f'name: "{model.name}"', f'backend: "{backend}"']
    if not python:
        head.append('platform: "pytorch_libtorch"')
    return "\n".join(
        [
            *head,
            f"max_batch_size: {shapes.max_batch_size}",
            *tensors("input", model.inputs, shapes),
            *tensors("output", model.outputs, shapes),
            f"instance_group [ {{ count: 1 kind: {'KIND_CPU' if python else 'KIND_AUTO'} }} ]",
            parameter("codes", str(shapes.codes)),
            *(python_tail(model, shapes, sizes, threads) if python else warmups(model, shapes, sizes)),
            "",
        ]
    )


def warm_sizes(shapes: Shapes) -> list[int]:
    return sorted({*(n for n in WARM_SIZES if n < shapes.max_batch_size), shapes.max_batch_size})


def tensors(kind: str, table: Iterable[Tensor], shapes: Shapes) -> list[str]:
    rows = [f'  {{ name: "{t.name}" data_type: TYPE_{t.dtype} dims: {list(shapes.resolve(t.dims))} }}' for t in table]
    return [f"{kind} [", ",\n".join(rows), "]"]


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: {json.dumps(value)} }} }}'


def python_tail(model: Model, shapes: Shapes, sizes: list[int], threads: int) -> list[str]:
    """What the shared model.py reads: threads, warm-up batch sizes, and the value that fills each warm-up tensor."""
    sample = {tensor.name: tensor.sample_value(shapes) for tensor in model.inputs}
    return [
        parameter("threads", str(threads)),
        parameter("warm_sizes", json.dumps(sizes)),
        parameter("sample", json.dumps(sample)),
    ]


def warmups(model: Model, shapes: Shapes, sizes: list[int]) -> list[str]:
    """Triton's own warm-up: it joins ``batch_size`` one-row requests; each row is a file in NAME/warmup/."""
    inputs = []
    for tensor in model.inputs:
        dims = [max(size, 1) for size in shapes.resolve(tensor.dims)]
        value = f'{{ data_type: TYPE_{tensor.dtype} dims: {dims} input_data_file: "{tensor.name}" }}'
        inputs.append(f'  inputs {{ key: "{tensor.name}" value {value} }}')
    body = "\n".join(inputs)
    # Twice: TorchScript profiles the first run and optimises in the second.
    return [f'model_warmup {{\n  name: "rows {n}" batch_size: {n} count: 2\n{body}\n}}' for n in sizes]
