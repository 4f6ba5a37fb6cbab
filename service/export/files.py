"""Write a Triton model repository: TorchScript files, configs, and the two files the worker reads."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.jit import ScriptModule

from service.condition import Condition
from service.errors import SetupError
from service.export.config import Backend, render_config
from service.export.written import WORTH_WATCHING, watched
from service.messages import ModelInfo
from service.triton.contract import Model, Shapes, models_of
from service.triton.repository import INFO_FILE, TOKENIZER_FILE

SOURCES = ("model.py", "graphs.py")
"""Of the python backend, beside each model."""


@dataclass(frozen=True)
class ScriptedModules:
    """One TorchScript module per model; forward's arguments and outputs are the contract's tensors, in its order."""

    diffusion_step: ScriptModule
    image_decoder: ScriptModule
    image_encoder: ScriptModule
    text_encoder: ScriptModule | None = None


def write_repository(
    modules: ScriptedModules,
    info: ModelInfo,
    tokenizer_json: bytes | None,
    repository: Path,
    backend: Backend = Backend.PYTHON,
    max_batch_size: int = 16,
    on_stage: Callable[[str], object] = lambda _: None,
) -> None:
    """Fill ``repository``. Each file appears whole, and ``vqd.json`` last: where it is, the rest is complete.

    ``on_stage`` is told what begins. Raises SetupError when a module does not honour the contract.
    """
    shapes = Shapes(
        tokens=info.tokens,
        text_positions=info.text_positions,
        text_width=text_width(modules.text_encoder, info.text_positions) if modules.text_encoder else 0,
        codes=info.codes,
        image_height=info.image_height,
        image_width=info.image_width,
        max_batch_size=max_batch_size,
        condition=info.condition,
        classes=info.classes,
    )
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


def text_width(encoder: ScriptModule, positions: int) -> int:
    """D, from what the encoder gives for an empty prompt."""
    ids = torch.zeros(1, positions, dtype=torch.int32)
    with torch.inference_mode():
        return int(encoder(ids, torch.ones_like(ids)).shape[-1])


def check_module(module: ScriptModule, model: Model, shapes: Shapes) -> None:
    """Run the module once on the contract's sample. Raises SetupError naming what differs from the table."""
    schema = module.forward.schema  # type: ignore[attr-defined]
    arguments = [argument.name for argument in schema.arguments[1:]]
    expected = [tensor.name for tensor in model.inputs]
    if arguments != expected:
        raise SetupError(f"{model.name}: forward takes {arguments}, the contract has {expected}")
    rows = min(1 if size_of(module) > WORTH_WATCHING else 2, shapes.max_batch_size)  # two of a large one take a minute
    with torch.inference_mode():
        result = module(*(torch.from_numpy(array) for array in model.sample(shapes, rows).values()))
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


def write_model(module: ScriptModule, model: Model, shapes: Shapes, folder: Path, backend: Backend) -> None:
    version, warmup = folder / "1", folder / "warmup"
    version.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(warmup, ignore_errors=True)
    partial = version / ".model.pt.partial"
    with watched(partial, size_of(module), f"writing {model.name}"):
        module.save(str(partial))
    os.replace(partial, version / "model.pt")
    for name in SOURCES:
        if backend is Backend.PYTHON:
            write_whole(version / name, (Path(__file__).parent / name).read_bytes())
        else:
            (version / name).unlink(missing_ok=True)
    if backend is not Backend.PYTHON:
        warmup.mkdir()
        for name, row in model.sample(shapes).items():
            write_whole(warmup / name, row.tobytes())


def size_of(module: ScriptModule) -> int:
    """Bytes of its weights, without those that are constants of its code."""
    return sum(tensor.nbytes for tensor in module.state_dict().values())


def write_whole(path: Path, content: bytes) -> None:
    """Readers see the old file or the new one, never a part."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)
