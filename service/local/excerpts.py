"""What of a process's log goes into an error message: the first cause, then the end."""

import re
from collections.abc import Iterable
from pathlib import Path

HEAD, TAIL = 2**20, 2**16
"""Bytes that are looked at; a log has no bound."""
LINES = 15
LONGEST = 400

CAUSES = [
    re.compile(pattern)
    for pattern in (
        r"^vqd: (?!note: )(.+)",
        r" ERROR [\w.]+: (.+)",  # our own log lines as text, and as JSON
        r'"level": "(?:ERROR|CRITICAL)", "logger": "[^"]*", "message": "((?:[^"\\]|\\.)*)"',
        r"^(\w[\w.]*(?:Error|Exception)\b.*)",  # the end of a traceback
        r'^E\d{4} [^]]*\] (?!"CudaDriverHelper)(.+)',  # Triton's; every start without CUDA has the one about it
        r"Failed to initialize Python stub: (.+)",
        r"^\s+what\(\):\s+(.+)",
        r"^(\S+: (?:line \d+: |error while |symbol ).+)",  # of a shell and of the loader
        r"^\d+:\w .* # ((?:Bad|Can't|Could not|Error|Failed|Fatal|Unrecoverable|Warning: Could not).+)",  # of Redis
        r"^>>> (.+)",
    )
]


def excerpt(log: Path, begins: int = 0) -> str:
    """``: the first cause; the end of LOG: its last lines``, of what is in the log from byte ``begins`` on."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(begins)
            head = file.read(HEAD)
            file.seek(max(begins, size - TAIL))
            tail = file.read(TAIL)
    except OSError as error:
        return f"; {log} cannot be read: {error.strerror}"
    cause = first_cause(lines(head))
    return f"{f': {cause}' if cause else ''}; the end of {log}:\n" + "\n".join(lines(tail)[-LINES:])


def lines(content: bytes) -> list[str]:
    return content.decode(errors="replace").splitlines()


def first_cause(said: Iterable[str]) -> str | None:
    """In one line; None when nothing looks like one."""
    for line in said:
        for pattern in CAUSES:
            if found := pattern.search(line):
                return plain(found[1])
    return None


def plain(cause: str) -> str:
    """Without quotes and escapes, and without the place in the code that Triton adds."""
    text = cause.replace("\\n", "\n").replace('\\"', '"').partition("\n\nAt:")[0]
    return " ".join(text.strip('"').removeprefix("ERROR: ").split())[:LONGEST]
