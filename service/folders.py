"""Folders that somebody names: tried before work goes into them, and held by one process at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from service.errors import SetupError

LOCK_FILE = ".in-use"
"""Holds the number of the process that holds the folder."""
BLOCK = 4096
"""Bytes of a trial: a full disk takes an empty file."""


def unwritable(path: Path, error: OSError) -> SetupError:
    return SetupError(f"cannot write to {path}: {error.strerror or error}")


def require_writable(folder: Path) -> None:
    """Try it where the folder is or will be, without making it. Raises SetupError in one line."""
    place = folder.absolute()
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    try:
        with TemporaryFile(dir=place) as trial:
            trial.write(b"\0" * BLOCK)
    except OSError as error:
        raise unwritable(folder, error) from None


def make_folder(folder: Path) -> None:
    """Raises SetupError in one line."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from None


def holder(folder: Path) -> str | None:
    """The number of the process that holds the folder now."""
    try:
        with (folder / LOCK_FILE).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return (folder / LOCK_FILE).read_text() or "?"
    except OSError:
        pass
    return None


@contextmanager
def held(folder: Path, otherwise: str) -> Iterator[None]:
    """No other process is inside with the same folder, which is made if need be.

    Raises SetupError, which names the process that is inside and says what to do ``otherwise``.
    """
    make_folder(folder)
    try:
        file = (folder / LOCK_FILE).open("a+")
    except OSError as error:
        raise unwritable(folder, error) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel lets go of it when we die
        except BlockingIOError:
            file.seek(0)
            raise SetupError(f"{folder} is in use by process {file.read() or '?'}; {otherwise}") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
