"""Model folder to Triton model repository: what ``vqd export`` does."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from pydantic import ValidationError

from service.errors import SetupError
from service.messages import ModelInfo
from service.models.folder import folder_fingerprint, load_model
from service.triton.config import Backend
from service.triton.export import INFO_FILE, write_repository
from service.triton.modules import script_model


def export_model(folder: Path, repository: Path, backend: str = "python", max_batch: int = 16) -> ModelInfo:
    """Load ``folder``, script it, and write the repository. Raises SetupError for a wrong folder or backend."""
    if backend not in list(Backend):
        raise SetupError(f"--backend {backend}: allowed are {', '.join(Backend)}")
    model = load_model(folder)
    tokenizer = model.tokenizer.to_str().encode()
    with torch.inference_mode(), one_thread():
        modules = script_model(model)
        write_repository(modules, model.info, tokenizer, repository, Backend(backend), max_batch)
    return model.info


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
    """Export unless the repository holds this very model already; returns whether it exported."""
    if exported_model(repository) == folder_fingerprint(folder):
        return False
    export_model(folder, repository)
    return True


def exported_model(repository: Path) -> str | None:
    """The fingerprint of the model that the repository holds; None when it holds none that this version can serve."""
    try:
        return ModelInfo.model_validate_json((repository / INFO_FILE).read_bytes()).sha256
    except (FileNotFoundError, ValidationError):
        return None
