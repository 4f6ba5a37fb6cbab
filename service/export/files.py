"""Write a Triton model repository: the models' files, configs, and the two files the worker reads."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch.export import ExportedProgram
from torch.jit import ScriptModule

from service.condition import Condition
from service.errors import SetupError
from service.export.config import Backend, render_config
from service.export.plan_script import PLAN_SCRIPT, plan_script
from service.export.programs import write_onnx, write_package
from service.export.written import WORTH_WATCHING, watched
from service.serving import ModelInfo
from service.triton.contract import Model, Shapes, models_of
from service.triton.repository import INFO_FILE, TOKENIZER_FILE

SOURCES = ("model.py", "graphs.py")
"""Of the python backend, beside each model."""
FILES = (*SOURCES, "model.pt", "model.pt2", "model.onnx", "model.onnx.data", "model.plan")
"""All that a version folder may hold; what another backend left there is removed."""
Served: TypeAlias = ScriptModule | ExportedProgram


@dataclass(frozen=True)
class ServedModules:
    """One for each model; arguments and outputs are the contract's tensors, in its order."""

    diffusion_step: Served
    image_decoder: Served
    image_encoder: Served
    text_encoder: Served | None = None


def write_repository(
    modules: ServedModules,
    info: ModelInfo,
    shapes: Shapes,
    tokenizer_json: bytes | None,
    repository: Path,
    backend: Backend = Backend.PYTHON,
    on_stage: Callable[[str], object] = lambda _: None,
) -> None:
    """Fill ``repository``. Each file appears whole, and ``vqd.json`` last: where it is, the rest is complete.

    ``on_stage`` is told what begins. Raises SetupError when a module does not honour the contract.
    """
    models = models_of(info.condition)
    for model in models:
        on_stage(f"trying the {model.name.replace('_', ' ')}")
        check_module(getattr(modules, model.name), model, shapes)
    on_stage(f"writing {repository}")
    repository.mkdir(parents=True, exist_ok=True)
    (repository / INFO_FILE).unlink(missing_ok=True)
    for name in {model.name for kind in Condition for model in models_of(kind)} - {model.name for model in models}:
        shutil.rmtree(repository / name, ignore_errors=True)  # of a model of another kind that was here before
    for model in models:
        config = render_config(model, shapes, backend, fingerprint=info.fingerprint)
        write_model(getattr(modules, model.name), model, shapes, repository / model.name, backend)
        write_whole(repository / model.name / "config.pbtxt", config.encode())
    if tokenizer_json is not None:
        write_whole(repository / TOKENIZER_FILE, tokenizer_json)
    write_whole(repository / INFO_FILE, info.model_dump_json(indent=2).encode() + b"\n")


def check_module(module: Served, model: Model, shapes: Shapes) -> None:
    """Run the module once on the contract's sample. Raises SetupError naming what differs from the table."""
    if isinstance(module, ScriptModule):
        schema = module.forward.schema  # type: ignore[attr-defined]
        arguments = [argument.name for argument in schema.arguments[1:]]
        expected = [tensor.name for tensor in model.inputs]
        if arguments != expected:
            raise SetupError(f"{model.name}: forward takes {arguments}, the contract has {expected}")
    rows = min(1 if size_of(module) > WORTH_WATCHING else 2, shapes.max_batch_size)  # two of a large one take a minute
    with torch.inference_mode():
        call = module if isinstance(module, ScriptModule) else module.module()
        result = call(*(torch.from_numpy(array) for array in model.sample(shapes, rows).values()))
    outputs = list(result) if isinstance(result, tuple) else [result]
    if len(outputs) != len(model.outputs):
        raise SetupError(f"{model.name}: {len(outputs)} outputs, the contract has {len(model.outputs)}")
    for output, tensor in zip(outputs, model.outputs, strict=True):
        if not tensor.fits(output.numpy(), shapes, rows):
            expected_shape = (rows, *shapes.resolve(tensor.dims))
            raise SetupError(
                f"{model.name}: {tensor.name} is {output.dtype} {list(output.shape)}, "
                f"the contract has {tensor.dtype} {list(expected_shape)}"
            )


def write_model(module: Served, model: Model, shapes: Shapes, folder: Path, backend: Backend) -> None:
    version, warmup = folder / "1", folder / "warmup"
    version.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(warmup, ignore_errors=True)
    for name in FILES:
        (version / name).unlink(missing_ok=True)
    (folder / PLAN_SCRIPT).unlink(missing_ok=True)
    if isinstance(module, ScriptModule):
        partial = version / ".model.pt.partial"
        with watched(partial, size_of(module), f"writing {model.name}"):
            module.save(str(partial))
        os.replace(partial, version / "model.pt")
    elif backend is Backend.AOTI:
        write_package(module, version)
    else:
        write_onnx(module, model, version)
    if backend.of(model.name)[0] == "python":
        for name in SOURCES:
            write_whole(version / name, (Path(__file__).parent / name).read_bytes())
        return
    if backend.of(model.name)[0] == "tensorrt":
        write_whole(folder / PLAN_SCRIPT, plan_script(model, shapes).encode())
    warmup.mkdir()
    for name, row in model.sample(shapes).items():
        write_whole(warmup / name, row.tobytes())


def size_of(module: Served) -> int:
    """Bytes of its weights, without those that are constants of its code."""
    state = module.state_dict() if isinstance(module, ScriptModule) else module.state_dict
    return sum(tensor.nbytes for tensor in state.values())


def write_whole(path: Path, content: bytes) -> None:
    """Readers see the old file or the new one, never a part."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)
