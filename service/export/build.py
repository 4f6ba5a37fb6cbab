"""Model folder to Triton model repository: what ``vqd export`` does."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from service.errors import SetupError
from service.export.config import Backend
from service.export.files import write_repository
from service.export.fingerprint import code_fingerprint, is_export_of
from service.export.modules import script_model
from service.folders import held, require_writable
from service.messages import ModelInfo
from service.models.folder import load_model


def export_model(
    folder: Path,
    repository: Path,
    backend: str = "python",
    max_batch: int = 16,
    on_stage: Callable[[str], object] = lambda _: None,
) -> ModelInfo:
    """Load ``folder``, script it, and write the repository; ``on_stage`` is told what begins, in words.

    Raises SetupError for a wrong folder or backend, and where another export goes on.
    """
    if backend not in list(Backend):
        raise SetupError(f"--backend {backend}: allowed are {', '.join(Backend)}")
    require_writable(repository)
    on_stage(f"reading {folder}")
    model = load_model(folder)
    if model.tokenizer is None:
        raise SetupError(f"{folder}: only models with a text condition can be exported yet")
    tokenizer = model.tokenizer.to_str().encode()
    with torch.inference_mode(), one_thread():
        on_stage("compiling the networks")
        modules = script_model(model)
        code = code_fingerprint()
        made_of = f"{model.info.sha256} {code} {backend} {max_batch}"
        fingerprint = hashlib.sha256(made_of.encode()).hexdigest()
        info = model.info.model_copy(update={"code": code, "fingerprint": fingerprint})
        with held(repository, "wait until it has exported"):
            write_repository(modules, info, tokenizer, repository, Backend(backend), max_batch, on_stage)
    return info


@contextmanager
def one_thread() -> Iterator[None]:
    """The small checks of an export gain nothing from threads, which spin for half a minute on busy cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def ensure_exported(folder: Path, repository: Path) -> bool:
    """Export unless the repository holds this very model already, made by this code; returns whether it exported."""
    if is_export_of(repository, folder):
        return False
    export_model(folder, repository)
    return True
