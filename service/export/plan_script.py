"""How TensorRT's own builder makes the step's plan: it runs on the GPU that serves it, inside its container."""

from service.export.programs import CONDITIONS
from service.triton.contract import Model, Shapes

PLAN_SCRIPT = "build-plan.sh"
"""In the model's folder, beside its version."""


def plan_script(model: Model, shapes: Shapes) -> str:
    """A shell script with the one line of trtexec: sizes of one row, of the usual call, and of the largest."""
    batch = shapes.max_batch_size
    sizes = {"min": (1, 1), "opt": (max(1, batch // 2), CONDITIONS), "max": (batch, CONDITIONS)}
    ranges = [f"--{name}Shapes={shapes_of(model, shapes, *size)}" for name, size in sizes.items()]
    line = " \\\n  ".join(["trtexec --onnx=model.onnx --saveEngine=model.plan --stronglyTyped", *ranges])
    return f"""#!/bin/sh
# Run on the GPU that will serve it, in the container whose Triton does: a plan fits one version and one kind of GPU.
set -e
cd "$(dirname "$0")/1"
{line}
"""


def shapes_of(model: Model, shapes: Shapes, rows: int, conditions: int) -> str:
    """NAME:BxDx… of each input, as trtexec reads them."""
    sizes = []
    for tensor in model.inputs:
        dims = [
            conditions if dim == "C" else size
            for dim, size in zip(tensor.dims, tensor.sample_dims(shapes), strict=True)
        ]
        sizes.append(f"{tensor.name}:{'x'.join(map(str, (rows, *dims)))}")
    return ",".join(sizes)
