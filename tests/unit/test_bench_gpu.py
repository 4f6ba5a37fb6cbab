"""``vqd bench gpu`` on a CPU and a tiny network: every part of the programme runs, and what it needs is little."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from service.lab.bench.gpu.measure import Clock
from service.lab.bench.gpu.networks import TINY, networks
from service.lab.bench.gpu.programme import Programme, measure_gpu

ELSEWHERE = ("diffusers", "fastapi", "httpx", "pydantic", "redis", "tqdm", "tritonclient", "typer")
"""What a machine with nothing but torch, numpy and safetensors has not."""


def programme(said: list[str], minutes: float = 5) -> Programme:
    sizes = {"sizes": (1, 2), "passes": (2,), "grids": 8, "product": 64}
    return Programme([TINY], "cpu", clock=Clock(minutes), say=said.append, compiles=False, **sizes)


@pytest.fixture
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.filterwarnings("ignore")  # of diffusers, whose pipeline is deprecated
def test_every_part_has_its_records(tmp_path: Path) -> None:
    out, said = tmp_path / "new/gpu.json", []
    table = measure_gpu(out, programme(said))
    records = json.loads(out.read_text())["records"]
    assert [r for r in records if r["what"] == "failed"] == []
    assert {"peak", "network", "speed", "flips", "whole run"} == {r["what"] for r in records}
    speeds = [r for r in records if r["what"] == "speed"]
    assert {r["variant"] for r in speeds} == {"graphs", "graphs-script", "script", "plain", "diffusers"}
    assert {r["dtype"] for r in speeds} == {"bf16", "fp16", "tf32", "fp32"}
    assert all(r["ms_per_evaluation"] > 0 and r["pictures_per_s"] > 0 for r in speeds)
    assert [r["flipped"] for r in records if r["what"] == "flips"] == [0] * 5
    assert len(table.splitlines()) == len(speeds) + 2
    assert len(said) == len(records)


def test_what_there_is_no_time_for_is_named() -> None:
    record = programme([], minutes=0).run()
    whys = {(r["part"], r["why"]) for r in record["records"] if r["what"] == "left out"}
    assert ("flips", "no time left") in whys
    assert len(whys) == 7


def test_a_variant_that_fails_does_not_end_the_programme() -> None:
    said: list[str] = []
    one = programme(said)

    def broken() -> None:
        raise RuntimeError("no such kernel")

    one.part("speed", 0, broken, network="tiny")
    assert one.records == [
        {"what": "failed", "part": "speed", "error": "RuntimeError: no such kernel", "network": "tiny"}
    ]


def test_it_needs_torch_numpy_and_safetensors_only() -> None:
    program = f"import sys; sys.modules |= dict.fromkeys({ELSEWHERE}); import service.lab.bench.gpu.__main__"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_networks_are_the_released_ones() -> None:
    """Weights in millions, as the papers' tables and checkpoints have them without codec and text encoder."""
    assert {network.name: round(network.weights / 1e6) for network in networks()} == {
        "ithq": 1359,
        "bundled": 5,
        "coco": 389,
        "imagenet": 518,
    }
