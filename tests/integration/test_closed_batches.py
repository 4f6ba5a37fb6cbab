"""The worker that batches requests, for comparison: a process on a real Redis and the shipped fake of Triton."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import HEALTH_CHECK_NOISE, Fleet


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(redis_url, tmp_path)
    yield fleet
    fleet.close()


@pytest.mark.parametrize(
    ("module", "sizes"),
    [(("service.lab.bench.closed_batches",), {2}), (("service.cli", "worker"), {2, 4})],
    ids=["requests", "steps"],
)
def test_jobs_of_other_parameters_share_no_call(fleet: Fleet, module: tuple[str, ...], sizes: set[int]) -> None:
    """Two of four evaluations and two of eight; a worker that batches steps runs all four together at first."""
    jobs = [fleet.submit(seed=seed, steps=steps) for steps in (4, 8) for seed in (1, 2)]
    fleet.start_worker(module=module)
    for job in jobs:
        fleet.wait(job)
    steps = [call for call in fleet.triton.calls if call.model == "diffusion_step"]
    assert {call.rows for call in steps if (call.inputs["uniforms"] != HEALTH_CHECK_NOISE).any()} == sizes
