"""The machine's shared memory, through which Triton and its Python processes pass tensors."""

import os
import re
import shutil
from pathlib import Path
from tempfile import mkdtemp

from service.errors import SetupError
from service.folders import require_writable, unwritable

SHARED_MEMORY = Path("/dev/shm")
WANTED_MB = 16
"""Free before a start: each model takes 1 MB at once, and more with the calls."""


def require_shared_memory(folder: Path = SHARED_MEMORY) -> str:
    """How much is free, in words. Raises SetupError when that is too little."""
    try:
        space = os.statvfs(folder)
    except OSError as error:
        raise unwritable(folder, error) from None
    free_mb = space.f_bavail * space.f_frsize >> 20
    if free_mb < WANTED_MB:
        raise SetupError(
            f"{folder} has {free_mb} MB free and Triton needs {WANTED_MB} MB there; for a container: --shm-size=64m"
        )
    require_writable(folder)
    return f"{free_mb} MB free in {folder}"


def prefix_of(port: int) -> str:
    """What the names begin with of all memory that a server of this process, at ``port``, takes there."""
    return f"vqd_{os.getpid()}_{port}_"


def private_folder() -> Path:
    """A new folder there: on every machine that runs Triton, and its path needs no quoting."""
    return Path(mkdtemp(dir=SHARED_MEMORY, prefix=f"vqd-{os.getpid()}-"))


def sweep_shared_memory() -> None:
    """Drop what servers left whose owner was killed: it would hold memory until the machine restarts."""
    for path in SHARED_MEMORY.glob("vqd[_-]*[_-]*"):
        owner = re.split("[_-]", path.name)[1]
        if owner.isdigit() and not Path("/proc", owner).exists():
            remove(path)


def remove_shared_memory(prefix: str) -> None:
    for path in SHARED_MEMORY.glob(f"{prefix}*"):
        remove(path)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
