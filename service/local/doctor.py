"""``vqd doctor``: what an installation on one machine needs, checked one by one."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from service.errors import SetupError, VqdError
from service.local.redis import find_redis_server
from service.local.triton import find_triton
from service.messages import ModelInfo
from service.models.folder import load_model
from service.settings import Settings
from service.sockets import port_is_free
from service.triton.repository import INFO_FILE


@dataclass(frozen=True)
class Finding:
    good: bool
    what: str
    detail: str

    def __str__(self) -> str:
        return f"{'ok     ' if self.good else 'MISSING'}  {self.what}: {self.detail}"


def examine(settings: Settings, model: Path) -> list[Finding]:
    """Every check, failed or not; raises nothing that a check raises."""
    checks: dict[str, Callable[[], str]] = {
        "Python": check_python,
        "redis-server": find_redis_server,
        "Triton": lambda: str(find_triton().binary),
        "model folder": lambda: describe_model(model),
        "model repository": lambda: describe_repository(settings.repository),
        "port": lambda: describe_port(settings),
    }
    return list(run_checks(checks))


def run_checks(checks: dict[str, Callable[[], str]]) -> Iterator[Finding]:
    for what, check in checks.items():
        try:
            yield Finding(True, what, check())
        except VqdError as error:
            yield Finding(False, what, str(error))


def check_python() -> str:
    return sys.version.split()[0]  # an older one would not have come this far


def describe_model(folder: Path) -> str:
    info = load_model(folder).info
    return (
        f"{info.name} in {folder}: {info.tokens} tokens of {info.codes} codes, {info.image_width}x{info.image_height}"
    )


def describe_repository(repository: Path) -> str:
    path = repository / INFO_FILE
    if not path.exists():
        return f"{repository} is not exported yet; `vqd up` does it, or `vqd export`"
    try:
        return f"{repository} holds {ModelInfo.model_validate_json(path.read_bytes()).name}"
    except ValidationError:
        raise SetupError(f"{path} is not from this version's `vqd export`; run it again") from None


def describe_port(settings: Settings) -> str:
    if not port_is_free(settings.host, settings.port):
        return f"{settings.host}:{settings.port} is taken (perhaps by a running service); VQD_PORT chooses another"
    return f"{settings.host}:{settings.port} is free"
