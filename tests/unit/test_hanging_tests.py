"""A test that waits for ever: pyproject.toml says for how long, and conftest.py that it waits once."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

TESTS = Path(__file__).parents[1]
HANGING = """
import time

def test_before(): pass

def test_hangs(): time.sleep(100)

def test_after(): pass
"""


def test_it_fails_by_name_and_the_others_run(tmp_path: Path) -> None:
    shutil.copy(TESTS / "conftest.py", tmp_path)
    (tmp_path / "test_hanging.py").write_text(HANGING)
    settings = TESTS.parent / "pyproject.toml"
    limit_s = tomllib.loads(settings.read_text())["tool"]["pytest"]["ini_options"]["faulthandler_timeout"]
    assert 300 < limit_s < 540, (
        "longer than any takes on a busy machine; ten of them are less than the time that CI has"
    )
    command = [sys.executable, "-m", "pytest", "-c", str(settings), "--rootdir", str(tmp_path), "-n", "1"]
    command += ["-p", "no:cacheprovider", "-o", "faulthandler_timeout=1", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 2 passed" in done.stdout
    assert re.findall(r"crashed while running '(.*)'", done.stdout) == ["test_hanging.py::test_hangs"]
    assert 'test_hanging.py", line 6 in test_hangs' in done.stderr
