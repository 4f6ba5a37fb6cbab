"""Whether processes get anywhere, and how long a start may take."""

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.local.motion import LOOK_S, READY_LIMIT_S, Motion, StartLimit
from service.local.processes import Child, end, spawn
from service.local.triton import TritonServer

BUSY = "while True: pass"
IDLE = "import time; print('here', flush=True); time.sleep(100)"


@pytest.fixture
def child(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Child]:
    process = spawn([sys.executable, "-S", "-c", request.param], tmp_path / "log")
    yield process
    end(process, grace_s=0)


@pytest.mark.parametrize("child", [BUSY], indirect=True)
def test_a_process_that_computes_moves(child: Child) -> None:
    motion = Motion(child.pid)
    while motion.spent()[0] - motion.seconds < 0.5:
        time.sleep(0.01)
    motion.looked_s, motion.moved_s = time.monotonic() - LOOK_S, time.monotonic() - 50
    assert motion.still_s() < 1


@pytest.mark.parametrize("child", [IDLE], indirect=True)
def test_a_process_that_waits_does_not(child: Child) -> None:
    while "here" not in child.log.read_text():
        time.sleep(0.01)
    motion = Motion(child.pid)
    motion.looked_s, motion.moved_s = time.monotonic() - LOOK_S, time.monotonic() - 50
    assert motion.still_s() >= 50


class Frozen(Motion):
    def __init__(self, still_s: float) -> None:
        self.still = still_s

    def still_s(self) -> float:
        return self.still


def test_models_may_load_as_long_as_something_moves() -> None:
    moving, still = StartLimit(Frozen(5)), StartLimit(Frozen(READY_LIMIT_S + 1))
    for limit in (moving, still):
        limit.began_s -= 10 * READY_LIMIT_S
    assert not moving.is_over(loading=True)
    assert still.is_over(loading=True)


def test_the_rest_may_take_as_long_as_that_and_some_more() -> None:
    limit = StartLimit(Frozen(0))
    limit.loaded_s -= READY_LIMIT_S + 50
    limit.began_s = limit.loaded_s - 60
    assert not limit.is_over(loading=False)
    limit.loaded_s -= 5
    limit.began_s -= 6
    assert not limit.is_over(loading=False)
    limit.began_s = limit.loaded_s - 40
    assert limit.is_over(loading=False)


SAID = """\
I1126 14:35:08.526301 19567 model_lifecycle.cc:472] "loading: diffusion_step:1"
I1126 14:35:08.548344 19567 model.py:57] "image_decoder: loading"
I1126 14:35:09.109117 19567 model.py:57] "diffusion_step: warming 4 rows (3 of 5)"
I1126 14:35:09.125875 19567 model_lifecycle.cc:839] "successfully loaded 'image_decoder'"
"""


def test_what_a_model_said_last_is_found_in_this_starts_log(tmp_path: Path) -> None:
    server = TritonServer(tmp_path, tmp_path)
    server.log.write_text(re.sub("4 rows", "2 rows", SAID))
    server.process = spawn([sys.executable, "-S", "-c", "pass"], server.log)
    server.process.wait()
    assert server.progress() == ""
    with server.log.open("a") as log:
        log.write(SAID)
    assert server.progress() == "diffusion_step: warming 4 rows (3 of 5)"
