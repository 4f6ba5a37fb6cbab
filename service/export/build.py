"""Model folder to Triton model repository: what ``vqd export`` does."""

import ctypes
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

import torch
from torch import nn

from service.errors import SetupError
from service.export.config import Backend
from service.export.files import ServedModules, write_repository
from service.export.fingerprint import code_fingerprint, is_export_of
from service.export.modules import package_model, program_model, script_model
from service.export.precision import Precision
from service.export.programs import require_onnx
from service.folders import held, require_writable
from service.models.folder import LoadedModel, load_model
from service.models.reading import Reading
from service.serving import ModelInfo
from service.triton.contract import Shapes

MANY = 50_000_000
"""Weights of a network that is large."""
M_MMAP_THRESHOLD = -3


def export_model(
    folder: Path,
    repository: Path,
    backend: str = "python",
    max_batch: int = 16,
    on_stage: Callable[[str], object] = lambda _: None,
    dtype: str = Precision.AUTO,
    on_note: Callable[[str], object] = lambda _: None,
) -> ModelInfo:
    """Load ``folder``, script it, and write the repository.

    ``on_stage`` is told what goes on, in words; ``on_note`` what somebody should know of the folder.

    Raises SetupError for a wrong folder or backend, and where another export goes on.
    """
    if backend not in list(Backend):
        raise SetupError(f"--backend {backend}: allowed are {', '.join(Backend)}")
    wanted = Backend(backend)
    if wanted.onnx:
        require_onnx()
    require_writable(repository)
    precision = Precision(dtype).decided()
    on_stage(f"reading {folder}")
    model = load_model(folder, Reading(precision.torch, on_stage, on_note))
    tokenizer = model.tokenizer.to_str().encode() if model.tokenizer else None
    with torch.no_grad(), means_for(model):
        on_stage("compiling the networks")
        shapes = shapes_of(model, max_batch, wanted)
        modules = modules_for(wanted, model, shapes)
        code = code_fingerprint()
        made_of = f"{model.info.sha256} {code} {backend} {max_batch} {precision}"
        fingerprint = hashlib.sha256(made_of.encode()).hexdigest()
        promised = is_promised(wanted, precision, model.info.tokens)
        made = {"dtype": precision.value, "backend": backend, "same_in_any_batch": promised}
        info = model.info.model_copy(update={"code": code, "fingerprint": fingerprint, **made})
        with held(repository, "wait until it has exported"):
            write_repository(modules, info, shapes, tokenizer, repository, wanted, on_stage)
    return info


def is_promised(backend: Backend, precision: Precision, tokens: int) -> bool:
    """Whether a seed's picture is the same in any batch, as far as it was measured for such an export."""
    return precision.same_in_any_batch(tokens) and not backend.compiled


def shapes_of(model: LoadedModel, max_batch: int, backend: Backend) -> Shapes:
    """What the contract depends on. A step of a compiler takes one evaluation, unless the python backend calls it."""
    info = model.info
    return Shapes(
        tokens=info.tokens,
        text_positions=info.text_positions,
        text_width=model.text.null.shape[-1] if model.text else 0,
        codes=info.codes,
        image_height=info.image_height,
        image_width=info.image_width,
        max_batch_size=max_batch,
        condition=info.condition,
        classes=info.classes,
        evaluations=1 if backend.onnx else -1,
    )


def modules_for(backend: Backend, model: LoadedModel, shapes: Shapes) -> ServedModules:
    if backend.onnx:
        return program_model(model, shapes)
    return package_model(model, shapes) if backend is Backend.AOTI else script_model(model)


@contextmanager
def means_for(model: LoadedModel) -> Iterator[None]:
    """What the checks of a model may take.

    Of a small one they gain nothing from threads, which spin for half a minute on busy cores. Of a large one they may
    not leave free memory between what is in use: 2 GB of weights took 3.5 GB so, and now take 2.4.
    """
    threads = torch.get_num_threads()
    weights = cast(nn.Module, model.transformer).parameters()  # mypy has no type that is a protocol and a module
    if sum(weight.numel() for weight in weights) < MANY:
        torch.set_num_threads(1)
    else:
        give_back_large_blocks()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def give_back_large_blocks() -> None:
    """Have the C library ask the kernel for each block of a MB or more, and give it back when it is freed."""
    with suppress(AttributeError):  # only glibc has it
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**20)


def ensure_exported(folder: Path, repository: Path, dtype: str = Precision.AUTO) -> bool:
    """Export unless the repository holds this very model in ``dtype``, made by this code; returns whether it did."""
    if is_export_of(repository, folder, dtype):
        return False
    export_model(folder, repository, dtype=dtype)
    return True
