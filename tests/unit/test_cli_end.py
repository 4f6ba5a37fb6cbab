"""How a process ends that has the client of S3 storage: as any other does, but without Python's own end."""

import sys
from pathlib import Path

import pytest
from commands import run

BEGIN = """
import atexit, sys
atexit.register(print, "Python's own end")
{first}
from service.cli import app
app.app = lambda: (print("not written yet", end=""), {act})
app.main()
"""
LOAD = "import obstore"
RAISE = "(_ for _ in ()).throw({})"
SETUP = RAISE.format("app.SetupError('VQD_S3_BUCKET cannot be used')")


@pytest.mark.parametrize(
    ("act", "status", "said"),
    [
        ("None", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(2)", 2, ""),
        (SETUP, 1, "vqd: VQD_S3_BUCKET cannot be used\n"),
        (RAISE.format("KeyboardInterrupt"), 130, ""),
        (RAISE.format("ZeroDivisionError('a bug')"), 1, "ZeroDivisionError: a bug\n"),
    ],
    ids=["returns", "exit", "exit 2", "our error", "interrupt", "a bug"],
)
def test_status_and_words_are_the_same(tmp_path: Path, act: str, status: int, said: str) -> None:
    for first, end in (("", "Python's own end\n"), (LOAD, "")):
        done = run([sys.executable, "-c", BEGIN.format(first=first, act=act)], tmp_path, {"PYTHONUNBUFFERED": ""})
        assert (done.returncode, done.stdout) == (status, "not written yet" + end)
        assert done.stderr.endswith(said)
        assert bool(done.stderr) == bool(said)
