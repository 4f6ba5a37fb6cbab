"""Ending a child ends its whole process group; whether somebody listens."""

import os
import socket
import sys
from pathlib import Path

import pytest

from service.local.processes import end, spawn
from service.sockets import free_port, port_answers

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
    assert end(family, grace_s=0) < 0
    with pytest.raises(ProcessLookupError):
        os.killpg(family.pid, 0)


def test_a_port_answers_while_somebody_listens() -> None:
    port = free_port()
    assert not port_answers("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)):
        assert port_answers("127.0.0.1", port)
