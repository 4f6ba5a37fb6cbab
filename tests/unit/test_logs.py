"""What a log line holds."""

import json
import logging
import sys
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from service.telemetry.logs import JsonFormatter, TextFormatter, ids, note_ids


def record(message: str, *arguments: object, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord("service.some", logging.WARNING, "file.py", 1, message, arguments, more.get("exc_info"))
    made.created = 1_700_000_000.1239
    made.__dict__.update(more)
    return made


def as_json(made: logging.LogRecord) -> dict[str, Any]:
    text = JsonFormatter().format(made)
    assert text.isascii()
    assert len(text.splitlines()) == 1
    line: dict[str, Any] = json.loads(text)
    return line


def test_the_members_of_a_line() -> None:
    assert as_json(record("%d jobs", 3)) == {
        "ts": "2023-11-14T22:13:20.123Z",
        "level": "WARNING",
        "logger": "service.some",
        "message": "3 jobs",
    }


def test_what_the_writer_adds_becomes_members() -> None:
    line = as_json(record("served", fields={"status": 200, "seconds": 0.25}))
    assert (line["status"], line["seconds"]) == (200, 0.25)


@pytest.mark.parametrize("hostile", ['"}\n{"level": "FAKE"', "a\u2028b\x85c", "lone \ud800", "\x1b[31mred"])
def test_whatever_the_message_it_stays_one_object_on_one_line(hostile: str) -> None:
    line = as_json(record("said %s", hostile))
    assert line["message"] == f"said {hostile}"
    assert line["level"] == "WARNING"


def test_an_exception_is_a_member() -> None:
    try:
        raise ValueError("of two\nlines")
    except ValueError:
        line = as_json(record("met", exc_info=sys.exc_info()))
    assert line["message"] == "met"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: of two\nlines")


def test_ids_are_there_inside_their_block_only() -> None:
    with ids(request_id="r1", job_id=None):
        with ids(request_id="r2", job_id="j2"):
            inner = as_json(record("inner"))
        outer = as_json(record("outer"))
        note_ids(job_id="j1")
        noted = as_json(record("noted"))
    after = as_json(record("after"))
    assert (inner["request_id"], inner["job_id"]) == ("r2", "j2")
    assert outer["request_id"] == "r1"
    assert "job_id" not in outer
    assert (noted["request_id"], noted["job_id"]) == ("r1", "j1")
    assert not {"request_id", "job_id"} & after.keys()


def test_text_has_the_same_for_people() -> None:
    with ids(request_id="r1", job_id="j1"):
        text = TextFormatter().format(record("served", fields={"status": 200}))
    assert text == "2023-11-14T22:13:20.123Z WARNING service.some: served request_id=r1 job_id=j1 status=200"


class Wanted(BaseModel):
    seed: int


def raise_quoting(prompt: str, *, grouped: bool) -> None:
    try:
        Wanted.model_validate({"seed": prompt})
    except ValidationError as error:
        if grouped:
            raise ExceptionGroup("of tasks", [error, OSError("no such file")]) from None
        raise RuntimeError("a bug while it was described") from error


@pytest.mark.parametrize("grouped", [False, True])
def test_what_an_error_quotes_of_a_request_is_left_out_of_its_traceback(grouped: bool) -> None:
    try:
        raise_quoting("ze" + "bra", grouped=grouped)  # the line itself is in the traceback
    except (RuntimeError, ExceptionGroup):
        made = record("met", exc_info=sys.exc_info())
    for text in (as_json(made)["exception"], TextFormatter().format(made)):
        assert "zebra" not in text
        assert "1 validation error for Wanted" in text
        assert "raise_quoting" in text
        assert ("no such file" if grouped else "a bug while it was described") in text
