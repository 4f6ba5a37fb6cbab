"""An exported model in this process, whatever backend it was exported for, as Triton would call it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from service.condition import Condition
from service.triton.contract import EACH_EVALUATION, diffusion_step

Loaded = Callable[..., Any]
"""The contract's inputs by name → its outputs, one tensor or a tuple. ``parts`` can be set."""


def load_exported(folder: Path) -> Loaded:
    """The model of a version folder."""
    if (folder / "model.pt").exists():
        module: Loaded = torch.jit.load(str(folder / "model.pt")).eval()
        return module
    return Package(folder / "model.pt2") if (folder / "model.pt2").exists() else Session(folder / "model.onnx")


class OneByOne:
    """A step that takes one evaluation a call, or a model without evaluations."""

    parts = 1

    def once(self, tensors: dict[str, Tensor]) -> list[Tensor]:
        raise NotImplementedError

    def __call__(self, **tensors: Tensor) -> Any:
        evaluations = tensors["timestep"].shape[1] if "timestep" in tensors else 1
        outputs: list[Tensor] = []
        for e in range(evaluations):
            now = {name: x[:, e : e + 1].contiguous() if name in EACH_EVALUATION else x for name, x in tensors.items()}
            outputs = self.once(now)
            tensors["tokens"] = outputs[0]
        return tuple(outputs) if len(outputs) > 1 else outputs[0]


class Package(OneByOne):
    """Of AOTInductor, which spreads over all threads, where ``bare.run`` leaves one to each operator."""

    def __init__(self, path: Path) -> None:
        self.module = torch._inductor.aoti_load_package(str(path))
        self.threads = torch.get_num_threads()

    def once(self, tensors: dict[str, Tensor]) -> list[Tensor]:
        torch.set_num_threads(self.threads)
        order = [tensor.name for kind in Condition for tensor in diffusion_step(kind).inputs if tensor.name in tensors]
        return list(self.module(*[tensors[name] for name in dict.fromkeys(order)]))


class Session(OneByOne):
    """Of onnxruntime."""

    def __init__(self, path: Path) -> None:
        self.session = onnx_session(path, torch.get_num_threads())

    def once(self, tensors: dict[str, Tensor]) -> list[Tensor]:
        return [torch.from_numpy(x) for x in self.session.run(None, {name: x.numpy() for name, x in tensors.items()})]


def onnx_session(path: Path, threads: int) -> Any:
    """A session of onnxruntime on the CPU."""
    import onnxruntime  # noqa: PLC0415  an extra; exports of other backends need none

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
