"""Ending a child ends its whole process group."""

import os
import sys
import time
from pathlib import Path

import pytest

from service.local.processes import end, spawn

FAMILY = """
import os, time
memory = bytearray(2**28)
children = [pid for _ in range(4) if (pid := os.fork())]
if len(children) == 4:
    print("ready", flush=True)
time.sleep(100)
"""


def test_nothing_of_the_group_is_left_when_end_returns(tmp_path: Path) -> None:
    """Not even one that is slow to die, with much memory to give back."""
    log = tmp_path / "log"
    family = spawn([sys.executable, "-c", FAMILY], log)
    while "ready" not in log.read_text():
        assert family.poll() is None
        time.sleep(0.01)
    assert end(family, grace_s=0) < 0
    with pytest.raises(ProcessLookupError):
        os.killpg(family.pid, 0)
