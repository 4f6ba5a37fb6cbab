"""Models for compilers: followed once by ``torch.export``, then written as ONNX or as a compiled package."""

import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from service.errors import SetupError
from service.triton.contract import Model, Shapes

OPSET = 20
CONDITIONS = 2
"""The most that a compiled step takes of a row: the prompt and what it is led away from."""


class Calling(nn.Module):
    """A method of a module as a module: what the served ones do without TorchScript's threads."""

    def __init__(self, module: nn.Module, method: Callable[..., Tensor]) -> None:
        super().__init__()
        self.module, self.method = module, method

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.method(*tensors)


def program_of(module: nn.Module, model: Model, shapes: Shapes) -> ExportedProgram:
    """For any number of rows up to the batch, and of conditions; everything else as in the contract's sample."""
    rows, conditions = Dim("rows", min=1, max=shapes.max_batch_size), Dim("conditions", min=1, max=CONDITIONS)
    sample = tuple(torch.from_numpy(array) for array in model.sample(shapes, min(3, shapes.max_batch_size)).values())
    sizes = []
    for tensor in model.inputs:
        own = {tensor.dims.index("C") + 1: conditions} if "C" in tensor.dims else {}
        sizes.append({0: rows, **own} if shapes.max_batch_size > 1 else own)
    with silent_exporter():
        return torch.export.export(module, sample, dynamic_shapes=(tuple(sizes),))


def write_package(program: ExportedProgram, folder: Path) -> None:
    """``model.pt2``, compiled for this machine's processor by AOTInductor, which takes a C++ compiler."""
    partial = folder / ".partial.pt2"
    with silent_exporter():
        torch._inductor.aoti_compile_and_package(program, package_path=str(partial))
    os.replace(partial, folder / "model.pt2")


def write_onnx(program: ExportedProgram, model: Model, folder: Path) -> None:
    """``model.onnx`` with the contract's names; beside it its weights, where they are more than 2 GB."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as partial:
        path = Path(partial, "model.onnx")
        with silent_exporter():
            made = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=[tensor.name for tensor in model.inputs],
                output_names=[tensor.name for tensor in model.outputs],
                verbose=False,
            )
        assert made is not None
        made.save(str(path))
        for file in sorted(path.parent.iterdir(), reverse=True):  # model.onnx.data is there before model.onnx
            os.replace(file, folder / file.name)


@contextmanager
def silent_exporter() -> Iterator[None]:
    """It tells of each stage, of torchvision, which nothing here needs, and of what torch itself calls too late."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        log.setLevel(level)


def require_onnx() -> None:
    """Raises SetupError where the exporter's packages are missing."""
    if not all(map(find_spec, ("onnx", "onnxscript"))):
        raise SetupError("--backend onnx and tensorrt need two packages more: pip install 'vqd[onnx]'")
