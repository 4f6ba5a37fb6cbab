"""The line that tells what goes on now."""

import io
import sys

import pytest

from service.local.live import LiveLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_one_line_with_the_time_and_then_none(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, plain = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    with LiveLine(plain) as line:
        line.show("waiting for both")
        line.tick()
        line.tick()
        line.show("waiting for one")
    shown = ["waiting for both", "waiting for both, 0 s", "waiting for one      ", " " * 15, ""]
    assert terminal.getvalue() == "\r" + "\r".join(shown)
    assert plain.getvalue() == ""


def test_a_line_that_is_too_long_keeps_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "12")
    line = LiveLine()
    line.show("waiting for everything")
    line.tick()
    assert terminal.getvalue() == "\rwaiting for\rwaitin, 0 s"


def test_elsewhere_each_thing_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    errors, plain = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", errors)
    with LiveLine(plain) as line:
        for text in ("one", "one", "two"):
            line.show(text)
            line.tick()
    assert (plain.getvalue(), errors.getvalue()) == ("one\ntwo\n", "")
