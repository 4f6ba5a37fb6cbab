"""What an exported repository says of the model that it holds, and of the code that made it; read without torch."""

from pathlib import Path

from pydantic import ValidationError

from service.messages import ModelInfo
from service.models.card import fingerprint, folder_fingerprint

INFO_FILE, TOKENIZER_FILE = "vqd.json", "tokenizer.json"
MAKERS = ("diffusion", "models", "triton")
"""The packages whose code ends up in the exported files."""


def code_fingerprint() -> str:
    """SHA-256 over the sources of MAKERS: after an upgrade, a step that was exported before it is out of date."""
    return fingerprint(*(Path(__file__).parents[1] / package for package in MAKERS), suffixes=(".py",))


def is_export_of(repository: Path, folder: Path) -> bool:
    """Whether the repository holds ``folder``'s very model, exported by this very code.

    Raises SetupError when there is no such folder.
    """
    wanted = folder_fingerprint(folder)
    try:
        info = ModelInfo.model_validate_json((repository / INFO_FILE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return False
    return (info.sha256, info.code) == (wanted, code_fingerprint())
