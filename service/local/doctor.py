"""``vqd doctor``: what an installation on one machine needs, checked one by one."""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from service.errors import SetupError, VqdError
from service.export.precision import Precision, bf16_units
from service.folders import holder, require_writable
from service.local.redis import find_redis_server
from service.local.shared_memory import require_shared_memory
from service.local.wheel import find_triton
from service.models.folder import load_model
from service.serving import ModelInfo
from service.settings import Settings
from service.sockets import refusal
from service.triton.repository import INFO_FILE

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")


@dataclass(frozen=True)
class Finding:
    good: bool
    what: str
    detail: str

    def __str__(self) -> str:
        return f"{'ok     ' if self.good else 'MISSING'}  {self.what}: {self.detail}"


def examine(settings: Settings, model: Path, out: Path) -> list[Finding]:
    """Every check, failed or not; raises nothing that a check raises."""
    checks: dict[str, Callable[[], str]] = {
        "Python": check_python,
        "redis-server": find_redis_server,
        "Triton": lambda: str(find_triton().binary),
        "shared memory": require_shared_memory,
        "processor": describe_processor,
        "model folder": lambda: describe_model(model),
        "model repository": lambda: describe_repository(settings.repository),
        "output folder": lambda: describe_out(out),
        "port": lambda: describe_port(settings),
        "proxies": describe_proxies,
    }
    return list(run_checks(checks))


def run_checks(checks: dict[str, Callable[[], str]]) -> Iterator[Finding]:
    for what, check in checks.items():
        try:
            yield Finding(True, what, check())
        except (VqdError, OSError) as error:
            yield Finding(False, what, str(error))


def check_python() -> str:
    return sys.version.split()[0]  # an older one would not have come this far


def describe_processor() -> str:
    units = ", ".join(sorted(bf16_units()))
    has = f"computes in bf16 ({units})" if units else "has no units for bf16"
    return f"{has}: --dtype auto is {Precision.AUTO.decided()}"


def describe_model(folder: Path) -> str:
    info = load_model(folder).info
    return (
        f"{info.name} in {folder}: {info.tokens} tokens of {info.codes} codes, {info.image_width}x{info.image_height}"
    )


def describe_repository(repository: Path) -> str:
    path = repository / INFO_FILE
    if not path.exists():
        require_writable(repository)
        return f"{repository} is not exported yet; `vqd up` does it, or `vqd export`"
    try:
        info = ModelInfo.model_validate_json(path.read_bytes())
    except ValidationError:
        raise SetupError(f"{path} is not from this version's `vqd export`; run it again") from None
    return f"{repository} holds {info.name} in {info.dtype}"


def describe_port(settings: Settings) -> str:
    place = f"{settings.host}, port {settings.port},"
    why = refusal(settings.host, settings.port)
    if why is None:
        return f"{place} is free"
    if why == os.strerror(errno.EADDRINUSE):
        return f"{place} is taken (perhaps by a running service); VQD_PORT chooses another"
    raise SetupError(f"{place} cannot be listened at: {why}; VQD_HOST and VQD_PORT choose another")


def describe_out(out: Path) -> str:
    require_writable(out / "run")
    user = holder(out / "run")
    return f"{out} is in use by process {user}; --out chooses another" if user else f"{out} can be written to"


def describe_proxies() -> str:
    """They may be what keeps a client from a service on another machine."""
    names = sorted(name for name in os.environ if name.lower() in PROXIES)
    return f"{', '.join(names)}: not asked on the way to this machine" if names else "none is set"
