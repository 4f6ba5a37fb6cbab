"""What the file of a picture is called: prompt, seed, number of the picture, such as ``red-apple-7-0.png``."""

import unicodedata
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from urllib.parse import quote

MOST_CHARS, MOST_BYTES = 40, 120
"""Of the prompt: a name has room for 255 bytes."""
SHOWN = "LMN"
"""Unicode's letters, the marks on them, and numbers."""


def slug(text: str) -> str:
    """``text`` in letters and digits of its own script, with hyphens for all between them; may be empty.

    So it has no path, no wildcard, nothing that a shell or a header would act upon.
    """
    plain = unicodedata.normalize("NFKC", text).lower()
    words = "".join(c if unicodedata.category(c)[0] in SHOWN else " " for c in plain[: 4 * MOST_CHARS]).split()
    short = "-".join(words)[:MOST_CHARS]
    return short.encode()[:MOST_BYTES].decode(errors="ignore").strip("-")


def file_name(request: Mapping[str, object], what: str | None = None) -> str:
    """Of the picture that ``request`` makes; ``what`` stands in place of its prompt."""
    if what is None:
        label = request.get("label")
        what = str(request.get("prompt") or ("" if label is None else f"class {label}"))
    return f"{slug(what) or 'picture'}-{request['seed']}-{request['image_index']}.{request['format']}"


def disposition(request: Mapping[str, object]) -> str:
    """Content-Disposition (RFC 6266): shown in the browser, saved by that name; in ASCII for who reads no more."""
    name, what = file_name(request), str(request.get("prompt") or "")
    if name.isascii():
        return f'inline; filename="{name}"'
    ascii_name = file_name(request, unicodedata.normalize("NFKD", what).encode("ascii", "ignore").decode())
    return f"inline; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(name)}"


def write_new(folder: Path, name: str, data: bytes) -> Path:
    """Write ``data`` under that name, or with a number behind it where there is such a file. Raises OSError.

    Whole or not at all, also when the disk is full or somebody interrupts.
    """
    first = folder / name
    for number in count(1):
        path = first if number == 1 else first.with_stem(f"{first.stem}_{number}")
        try:
            file = path.open("xb")
        except FileExistsError:
            continue
        try:
            with file:
                file.write(data)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path
    raise AssertionError("numbers do not end")
