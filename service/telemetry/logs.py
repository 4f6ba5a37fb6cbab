"""How the gateway, the worker and the supervisor log: one line per record, with the ids of request, job and API key.

The ids come from the context of whoever logs, so that lines of libraries carry them too. No prompt is ever put into
a record of INFO or above.
"""

import contextlib
import json
import logging
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TypeAlias

from service.settings import LogFormat

log = logging.getLogger(__name__)

IDS = {name: ContextVar[str | None](name) for name in ("request_id", "job_id", "key")}
ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
NOISY = ("httpx", "httpcore")
"""They write at INFO what only debugging needs."""


def note_ids(**ids: str | None) -> None:
    """From here on, every line of this context carries these ids."""
    for name, value in ids.items():
        IDS[name].set(value)


@contextlib.contextmanager
def ids(**given: str | None) -> Iterator[None]:
    """Every line of this block carries these ids."""
    tokens = [(IDS[name], IDS[name].set(value)) for name, value in given.items()]
    try:
        yield
    finally:
        for variable, token in tokens:
            variable.reset(token)


def members(record: logging.LogRecord) -> dict[str, Any]:
    """What a record says beside its message: the ids at hand, and the ``fields`` that its writer gave as ``extra``."""
    present = {name: value for name, variable in IDS.items() if (value := variable.get(None))}
    return present | getattr(record, "fields", {})


def timestamp(record: logging.LogRecord) -> str:
    """RFC 3339, UTC."""
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def linked(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it came from, and what is in a group."""
    waiting, seen = [error], set[int]()
    while waiting:
        if (one := waiting.pop()) is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]


class WithoutQuotes(logging.Formatter):
    """Tracebacks without the lines in which errors of pydantic and FastAPI quote what was sent: it may be a prompt."""

    def formatException(self, ei: ExcInfo) -> str:
        text = super().formatException(ei)
        quoting = [error for error in linked(ei[1]) if callable(getattr(error, "errors", None))]
        quotes = {line.strip() for error in quoting for line in str(error).splitlines()}
        return "\n".join(line for line in text.splitlines() if line.strip(" |") not in quotes)


class JsonFormatter(WithoutQuotes):
    """One JSON object per line, in ASCII: readers of lines disagree about what ends one in Unicode."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": timestamp(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **members(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(WithoutQuotes):
    """For people."""

    def format(self, record: logging.LogRecord) -> str:
        more = "".join(f" {name}={value}" for name, value in members(record).items())
        line = f"{timestamp(record)} {record.levelname} {record.name}: {record.getMessage()}{more}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def set_up_logging(level: str, form: LogFormat) -> None:
    """All logging of this process, ours and the libraries', to stderr; an exception that ends the process as well."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    sys.excepthook = log_death


def log_death(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("died of %s", kind.__name__, exc_info=(kind, error, trace))
