"""Keys in a file, one a line: for a first key before there is a Redis, and for Secrets of compose and Kubernetes."""

import os
import re
from pathlib import Path
from tempfile import NamedTemporaryFile

from service.errors import SetupError
from service.gateway.access.tokens import mint
from service.settings import Settings, variable
from service.sockets import is_loopback

TOKEN = re.compile(r"[!-~]{32,512}")


def read_tokens(path: Path) -> list[str]:
    """The tokens in their order. Raises SetupError, which names the line and shows nothing of it."""
    where = f"{variable('key_file')}={path}"
    try:
        lines = path.read_bytes().decode("utf-8-sig", "replace").split("\n")
    except OSError as error:
        raise SetupError(f"{where}: {error.strerror}") from None
    numbered = [(number, line.strip("\r \t")) for number, line in enumerate(lines, start=1)]
    for number, token in numbered:
        if token and not TOKEN.fullmatch(token):
            raise SetupError(
                f"{where}: line {number} is no key: one is 32 to 512 printable characters of ASCII without spaces"
            )
    tokens = [token for _, token in numbered if token]
    if not tokens:
        raise SetupError(f"{where}: holds no key; each line is one")
    return list(dict.fromkeys(tokens))


def own_key(settings: Settings, folder: Path) -> tuple[Settings, bool]:
    """Settings of a service of one machine that has the key it needs, and whether that was made now.

    Where the service can be reached from elsewhere and no key file is named, one is made in ``folder``, for its owner's
    eyes only. ``api_key`` of the settings is then one that the service takes. Raises SetupError.
    """
    path, made = settings.key_file, False
    if path is None:
        if settings.allow_unauthenticated or is_loopback(settings.host):
            return settings, False
        path = folder / "keys"
        made = make_key_file(path)
    key_file = {"key_file": path.absolute(), "api_key": read_tokens(path)[0]}
    return settings.model_copy(update=key_file), made


def make_key_file(path: Path) -> bool:
    """Write a new token, unless there is such a file; never half of one."""
    if path.exists():
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=path.parent, encoding="ascii") as file:  # readable for its owner alone
            file.write(mint().token + "\n")
            file.flush()
            os.link(file.name, path)
    except FileExistsError:  # another process was quicker
        return False
    except OSError as error:
        raise SetupError(f"cannot write to {path}: {error.strerror}") from None
    return True
