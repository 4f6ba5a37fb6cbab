"""Model folder to Triton model repository: what ``vqd export`` does."""

import json
from pathlib import Path

import torch

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
    with torch.inference_mode():
        modules = script_model(model)
    write_repository(modules, model.info, tokenizer, repository, Backend(backend), max_batch)
    return model.info


def ensure_exported(folder: Path, repository: Path) -> bool:
    """Export unless the repository holds this very model already; returns whether it exported."""
    path = repository / INFO_FILE
    if path.exists() and json.loads(path.read_text()).get("sha256") == folder_fingerprint(folder):
        return False
    export_model(folder, repository)
    return True
