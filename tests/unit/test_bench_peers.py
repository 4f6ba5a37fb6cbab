"""What is held against diffusers and other runtimes: tiny, and that each way does what its name says."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from unit.model_folder import write_model

from service.export.build import export_model
from service.export.precision import Precision
from service.lab.bench.bare import Bare
from service.lab.bench.networks import (
    Way,
    half_made,
    inputs_of,
    load_networks,
    measure_answers,
    measure_times,
    side_by_side,
)
from service.lab.bench.peer import Peer
from service.lab.bench.peers import guided_late, lines, measure, operator_threads, ways_of_bare, ways_of_peer
from service.lab.bench.runtimes import RUNTIMES, Case

pytestmark = [  # what diffusers says of itself
    pytest.mark.filterwarnings("ignore:Accessing config attribute:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`Transformer2DModelOutput` is deprecated:FutureWarning"),
]
COMPILERS = ("torch.compile", "AOTInductor")
"""They take 6 and 14 seconds: the command itself says whether they answer what TorchScript does."""
CASES = [(name, dtype) for name, runtime in RUNTIMES.items() for dtype in runtime.takes if name not in COMPILERS]
CLOSE = {Precision.FP32: 1e-3, Precision.BF16: 0.1}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peers") / "model"
    write_model(folder)
    return folder


@pytest.fixture(scope="module")
def bare(model: Path) -> Bare:
    export_model(model, model.parent / "repository", dtype=Precision.FP32)
    return Bare(model.parent / "repository")


def test_every_way_of_diffusers_and_of_the_bare_loop_makes_its_pictures(model: Path, bare: Bare) -> None:
    of_peer = ways_of_peer(model, bare, (Precision.FP32, Precision.BF16))
    assert {name.split(",")[0] for name in of_peer} == {"diffusers fp32", "diffusers bf16", "diffusers autocast"}
    chosen = {name: rate for name, rate in of_peer.items() if "batch of 2" in name or "one thread" in name}
    chosen |= {name: rate for name, rate in ways_of_bare({Precision.FP32: bare}).items() if name.endswith("of 8")}
    assert all(len(rates) == 2 and min(rates) > 0 for rates in measure(chosen, rounds=2).values())


@pytest.mark.parametrize(("dtype", "autocast"), [(torch.bfloat16, False), (torch.bfloat16, True)])
def test_the_peer_really_computes_in_the_dtype_of_its_name(
    dtype: torch.dtype, autocast: bool, model: Path, bare: Bare
) -> None:
    peer = Peer(model, bare, dtype, autocast)
    seen: set[torch.dtype] = set()
    linear = peer.pipeline.transformer.transformer_blocks[0].attn1.to_q
    linear.register_forward_hook(lambda _module, _inputs, output: seen.add(output.dtype))
    peer.seconds(["sun"], 2, bare.info.defaults)
    assert seen == {dtype}


def test_the_default_requests_leave_the_schedule_to_the_model() -> None:
    assert all("guidance_schedule" not in fields for fields in guided_late(3))
    assert [fields["seed"] for fields in guided_late(3, first=5)] == [5, 6, 7]


def test_threads_of_operators_are_as_before_afterwards() -> None:
    before = torch.get_num_threads()
    with operator_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_the_service_is_held_against_the_peers_best_way_round_by_round() -> None:
    rates = {
        "diffusers fp32, batch of 1": [2.0, 1.0],
        "diffusers bf16, batch of 8": [5.0, 2.5],
        "service bf16, default schedule, 8 requests at once": [12.0, 6.0],
        "service bf16, default schedule, 8 clients without pause": [9.0, 4.5],
    }
    told = {line.what: line for line in lines(rates, Precision.BF16)}
    burst, steady = list(rates)[2:]
    assert told[f"{burst} ÷ diffusers fp32, batch of 1"].values == [6, 6]
    assert told[f"{burst} ÷ diffusers fp32, batch of 1"].met
    assert told[f"{steady} ÷ diffusers fp32, batch of 1"].met is False
    assert told[f"{burst} ÷ diffusers bf16, batch of 8"].met
    assert told[f"{steady} ÷ diffusers bf16, batch of 8"].values == [1.8, 1.8]
    assert told[f"{steady} ÷ diffusers bf16, batch of 8"].met is False


@pytest.mark.filterwarnings("ignore")  # the exporters use what PyTorch gives up
@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_each_runtime_answers_what_the_network_does(
    name: str, dtype: Precision, model: Path, bare: Bare, tmp_path: Path
) -> None:
    """At another number of rows than it was built with, by two threads at once."""
    if lacks := RUNTIMES[name].lacks():
        pytest.skip(f"{', '.join(lacks)} missing: pip install 'vqd[peers]'")
    source = RUNTIMES[name].takes[dtype]
    network = load_networks(model, [source])[source]
    grids = half_made(bare, 4)
    call = RUNTIMES[name].build(Case(network, dtype, inputs_of(network, grids, 2), tmp_path, calls=2, threads=1))
    inputs = inputs_of(network, grids, 8)
    with torch.inference_mode(), ThreadPoolExecutor(2) as pool:
        wanted = network(*inputs).numpy()
        answers = list(pool.map(torch.inference_mode()(call), inputs.cut(2)))
    assert [len(answer) for answer in answers] == [4, 4]
    tolerance = 0.1 if "int8" in name else CLOSE[dtype]
    np.testing.assert_allclose(np.concatenate(answers), wanted, atol=tolerance * np.abs(wanted).max())


def test_times_and_answers_have_a_line_each(model: Path, bare: Bare) -> None:
    """With a runtime that is wrong by 1 at one position: its answer says so."""
    fp32 = Precision.FP32
    loaded, grids = load_networks(model, [fp32]), half_made(bare, 2)

    def right(parts):
        with torch.inference_mode():
            return [loaded[fp32](*part).numpy() for part in parts]

    def wrong(parts):
        answers = right(parts)
        answers[0][0, 0, answers[0][0, 0].argmin()] += 1000
        return answers

    found = [Way("TorchScript", fp32, 1, fp32, right), Way("Other", fp32, 1, fp32, wrong)]
    times = measure_times(found, loaded, grids, 3, (2, 4), least_s=0.0)
    assert [line.what for line in times] == [
        f"{name} fp32, one call on all cores, {rows} rows" for rows in (2, 4) for name in ("TorchScript", "Other")
    ]
    assert all(len(line.values) == 3 and min(line.values) > 0 for line in times)
    told = side_by_side([replace(line, values=[i + 0.5]) for i, line in enumerate(times)], (2, 4))
    assert told.splitlines()[2:] == [
        "| TorchScript fp32, one call on all cores | 0.5 | 2.5 |",
        "| Other fp32, one call on all cores | 1.5 | 3.5 |",
    ]
    answers = {line.what: line.value for line in measure_answers(found, loaded, grids, 4)}
    tokens = grids.tokens.shape[1]
    assert answers["TorchScript fp32: share of positions with the same likeliest code"] == 1
    assert answers["Other fp32: share of positions with the same likeliest code"] == 1 - 1 / (4 * tokens)
    assert answers["Other fp32: largest difference of a logit from TorchScript fp32"] == pytest.approx(1000)
