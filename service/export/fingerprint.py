"""What an exported repository says of the model that it holds, and of the code that made it; read without torch."""

from pathlib import Path

from pydantic import ValidationError

from service.export.precision import Precision
from service.models.card import digest, folder_fingerprint
from service.serving import ModelInfo
from service.triton.repository import INFO_FILE

PACKAGE = Path(__file__).parents[1]
LOCAL = ("python", "aoti")
"""The backends that the Triton from a wheel has."""
DIFFUSION = ("compiled", "evaluation", "guidance", "posterior", "purity", "schedule", "selection", "served", "step")
DECIDES = (
    *(f"diffusion/{name}.py" for name in DIFFUSION),
    *("models/**/*.py", "export/*.py", "triton/contract.py"),
)
"""The sources, below the package, that decide what an export holds; how a row is planned is not among them."""


def code_fingerprint() -> str:
    """SHA-256 over the sources of DECIDES: after an upgrade, a step that was exported before it is out of date."""
    return digest((PACKAGE, path) for pattern in DECIDES for path in sorted(PACKAGE.glob(pattern)))


def is_export_of(repository: Path, folder: Path, dtype: str = Precision.AUTO) -> bool:
    """Whether the repository holds ``folder``'s very model in ``dtype``, exported by this very code for a local Triton.

    Raises SetupError when there is no such folder.
    """
    wanted = folder_fingerprint(folder)
    try:
        info = ModelInfo.model_validate_json((repository / INFO_FILE).read_bytes())
    except (OSError, ValidationError):
        return False
    same = (info.sha256, info.code, info.dtype) == (wanted, code_fingerprint(), Precision(dtype).decided())
    return same and info.backend in LOCAL
