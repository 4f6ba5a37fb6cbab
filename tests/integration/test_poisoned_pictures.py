"""Promise 7, the decoder: a picture that it does not survive, among others that are decoded with it."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from fleet import Fleet

from service.messages import Status
from service.testing.fake_triton import DIES, Call, Failure
from service.triton.contract import Int32

COMPANIONS = 4
REFUSED = Failure(grpc.StatusCode.INTERNAL, "no")


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(redis_url, tmp_path, max_attempts=2)
    yield fleet
    fleet.close()


def grid_of(fleet: Fleet, seed: int) -> Int32:
    """What a job of this seed gives to the decoder."""
    worker = fleet.start_worker()
    fleet.wait(fleet.submit(seed=seed, steps=6, job_id="harmless"))
    worker.terminate()
    assert worker.wait(10) == 0
    grids = [call.inputs["tokens"] for call in fleet.triton.calls if call.model == "image_decoder"]
    return next(grid for grid in grids if grid.any())  # that of a health check is all zero


@pytest.mark.parametrize("fault", [DIES, REFUSED], ids=["kills Triton", "is answered with an error"])
def test_7_a_picture_that_the_decoder_does_not_survive_fails_alone(fleet: Fleet, fault: str | Failure) -> None:
    grid = grid_of(fleet, seed=99)

    def flawed(call: Call) -> bool:
        return call.model == "image_decoder" and bool((call.inputs["tokens"] == grid).all(1).any())

    fleet.triton.fail_when(flawed, fault)
    fleet.triton.restart_s = 0.05
    fleet.triton.calls.clear()
    companions = [fleet.submit(seed=seed, steps=6) for seed in range(COMPANIONS)]
    poison = fleet.submit(seed=99, steps=6)
    for _ in range(2):
        fleet.start_worker()
    failure = fleet.wait(poison, Status.FAILED, limit_s=60).failure
    assert failure is not None
    assert failure.kind == ("given-up" if fault == DIES else "inference-failed")
    for job in companions:
        fleet.wait(job)
    assert any(flawed(call) and call.rows > 1 for call in fleet.triton.calls), "it was never among others"
