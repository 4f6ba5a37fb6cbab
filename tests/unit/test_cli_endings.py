"""How a command ends that is told to, and what it does without a stream, or with one that takes nothing."""

import sys
from pathlib import Path

import pytest
from commands import run

BEGIN = """
import os, signal, sys, time
from service.cli import app
def send(name):
    os.kill(os.getpid(), getattr(signal, name))
    time.sleep(0.01)
class Lost:
    def __del__(self):
        send("SIGTERM")
def act():
    try:
        {act}
        time.sleep(60)
    finally:
        if signal.getsignal(signal.SIGTERM).__name__ == "hear":
            send("SIGTERM")
        print("left")
app.app = act
{before}
app.main()
"""
IGNORED = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"
OWN = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))"


@pytest.mark.parametrize(
    ("before", "act", "said", "status"),
    [
        ("", "send('SIGTERM')", "", 143),
        ("", "send('SIGHUP')", "", 129),
        ("", "Lost()", "Exception ignored", 143),
        (IGNORED, "send('SIGHUP'); send('SIGTERM')", "", 143),
        ("", f"{OWN}; send('SIGHUP')", "", 7),
    ],
    ids=["SIGTERM", "SIGHUP", "lost in a finaliser", "under nohup", "with an end of its own"],
)
def test_it_leaves_its_blocks_whatever_else_is_sent(
    tmp_path: Path, before: str, act: str, said: str, status: int
) -> None:
    done = run([sys.executable, "-c", BEGIN.format(before=before, act=act)], tmp_path, {})
    assert (done.returncode, done.stdout, done.stderr[: len(said)]) == (status, "left\n", said), done.stderr
    assert bool(done.stderr) == bool(said)


def test_an_output_that_is_full_is_said_in_one_line(tmp_path: Path) -> None:
    done = run(["sh", "-c", '"$0" -m service.cli --version >/dev/full', sys.executable], tmp_path, {})
    assert (done.returncode, done.stderr) == (1, "vqd: the output cannot be written: No space left on device\n")


def test_streams_that_are_closed_are_empty_ones(tmp_path: Path) -> None:
    act = "from service.cli import app; app.app = lambda: sys.exit(3 + len(sys.stdin.buffer.read())); app.main()"
    program = f"import sys; {act}"
    done = run(["sh", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, program], tmp_path, {})
    assert done.returncode == 3
