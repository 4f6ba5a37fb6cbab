"""What an exported model repository tells without Triton: ``vqd.json`` and ``tokenizer.json``."""

from pathlib import Path

from pydantic import ValidationError
from tokenizers import Tokenizer

from service.condition import Condition
from service.errors import SetupError
from service.serving import ModelInfo

INFO_FILE, TOKENIZER_FILE = "vqd.json", "tokenizer.json"


def read_repository(repository: Path) -> tuple[ModelInfo, Tokenizer | None]:
    """``vqd.json`` and ``tokenizer.json`` of an exported repository, the latter where the model is conditioned on text.

    Raises SetupError naming setting and file.
    """
    path, setting = repository / INFO_FILE, f"VQD_REPOSITORY={repository}"
    try:
        info = ModelInfo.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise SetupError(f"{setting}: {path} is missing: run `vqd export --repository {repository}`") from None
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise SetupError(f"{setting}: {path} is not from this version's `vqd export`: {reason}") from None
    if info.condition is not Condition.TEXT:
        return info, None
    try:
        return info, Tokenizer.from_file(str(repository / TOKENIZER_FILE))
    except Exception as error:  # the tokenizers library raises plain Exception
        raise SetupError(f"{setting}: {repository / 'tokenizer.json'} cannot be read: {error}") from error
