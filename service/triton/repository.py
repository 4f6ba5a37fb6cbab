"""What an exported repository says of the model that it holds, read without torch."""

from pathlib import Path

from pydantic import ValidationError

from service.messages import ModelInfo
from service.models.card import folder_fingerprint

INFO_FILE, TOKENIZER_FILE = "vqd.json", "tokenizer.json"


def is_export_of(repository: Path, folder: Path) -> bool:
    """Whether the repository holds ``folder``'s very model, such that this version can serve it.

    Raises SetupError when there is no such folder.
    """
    wanted = folder_fingerprint(folder)
    try:
        return ModelInfo.model_validate_json((repository / INFO_FILE).read_bytes()).sha256 == wanted
    except (FileNotFoundError, ValidationError):
        return False
