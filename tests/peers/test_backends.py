"""The models as ONNX, run by onnxruntime: tokens and pictures are those of TorchScript; and what stands beside them."""

import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
from unit.model_folder import write_model

from service.condition import Condition
from service.engine.row import Row
from service.export.build import export_model
from service.export.config import Backend, model_config
from service.export.plan_script import PLAN_SCRIPT
from service.export.precision import Precision
from service.lab.bench.backends import Way, measure_backends
from service.lab.bench.bare import Bare
from service.lab.bench.cases import mixed
from service.lab.bench.flips import SIZES
from service.triton.contract import STEP, Array, Shapes, diffusion_step, models_of

GRIDS = 208
pytest.importorskip("onnxruntime", reason="parity of ONNX needs onnxruntime, of the extra 'test'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backends")
    write_model(folder / "model")
    return folder


@pytest.fixture(scope="module")
def scripted(folder: Path) -> Bare:
    export_model(folder / "model", folder / "python", dtype="fp32")
    return Bare(folder / "python")


@pytest.fixture(scope="module")
def repository(folder: Path) -> Path:
    """Of TensorRT, whose models are those of ONNX."""
    export_model(folder / "model", folder / "tensorrt", "tensorrt", dtype="fp32")
    return folder / "tensorrt"


@pytest.fixture(scope="module")
def onnx(repository: Path) -> Bare:
    return Bare(repository)


def painted(bare: Bare, size: int) -> list[Row]:
    """Grids of mixed parameters, made in batches of ``size`` whose calls have 1 to 3 evaluations."""
    cases = [fields | {"steps": min(fields.get("steps", 12), 16)} for fields in mixed(GRIDS, seed=2)]
    rows, choose = [], random.Random(5)
    for start in range(0, GRIDS, size):
        batch = bare.begin(cases[start : start + size])
        while left := [row for row in batch if row.remaining]:
            bare.advance(left, choose.randint(1, min(3, *(row.remaining for row in left))))
        rows += batch
    return rows


def test_tokens_of_many_grids_are_those_of_torchscript(scripted: Bare, onnx: Bare) -> None:
    pairs = zip(painted(scripted, 16), painted(onnx, 13), strict=True)
    assert sum(not np.array_equal(ours.tokens, theirs.tokens) for ours, theirs in pairs) == 0


@pytest.mark.parametrize("model", ["text_encoder", "image_decoder"])
def test_the_other_models_give_what_torchscript_gives(scripted: Bare, onnx: Bare, model: str) -> None:
    random = np.random.default_rng(1)
    info = scripted.info
    arrays: dict[str, Array] = {"tokens": random.integers(0, info.codes, (3, info.tokens), np.int32)}
    if model == "text_encoder":
        ids = random.integers(0, 5000, (3, info.text_positions), np.int32)
        arrays = {"input_ids": ids, "attention_mask": (np.arange(ids.shape[1]) < [[0], [4], [9]]).astype(np.int32)}
    ours, theirs = (bare.call(model, **arrays).float() for bare in (scripted, onnx))
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1 if model == "image_decoder" else 2e-3)


def test_the_configs_say_what_triton_must_know(repository: Path) -> None:
    for model in models_of(Condition.TEXT):
        text = (repository / model.name / "config.pbtxt").read_text()
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        plan = model.name == STEP
        expected = ("tensorrt", "tensorrt_plan") if plan else ("onnxruntime", "onnxruntime_onnx")
        assert (config.backend, config.platform) == expected
        assert {file.name for file in (repository / model.name / "1").iterdir()} == {"model.onnx"}
        assert config.model_warmup
        for name in config.model_warmup[0].inputs:
            assert (repository / model.name / "warmup" / name).exists()
        assert not plan or {e.name: list(e.dims) for e in config.input}["timestep"] == [1]
        assert model_config(model, Shapes(4, 2, 3, 5, 2, 2), Backend.ONNX).platform == "onnxruntime_onnx"


def test_tensorrt_has_the_line_that_builds_its_plan(repository: Path) -> None:
    script = repository / STEP / PLAN_SCRIPT
    subprocess.run(["sh", "-n", script], check=True)
    text = script.read_text()
    for name in ("min", "opt", "max"):
        option = next(word for word in text.split() if word.startswith(f"--{name}Shapes="))
        sizes = dict(entry.split(":") for entry in option.partition("=")[2].split(","))
        assert list(sizes) == [tensor.name for tensor in diffusion_step(Condition.TEXT).inputs]
        rows, conditions = {"min": (1, 1), "opt": (8, 2), "max": (16, 2)}[name]
        assert sizes["weights"] == f"{rows}x1x{conditions}"
        assert sizes["contexts"].startswith(f"{rows}x{conditions}x")


def test_another_backend_leaves_nothing_of_the_one_before(folder: Path, repository: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(repository, tmp_path / "repository"))
    export_model(folder / "model", changed, dtype="fp32")
    names = {path.name for path in changed.rglob("*") if path.is_file()}
    assert names == {"model.pt", "model.py", "graphs.py", "config.pbtxt", "tokenizer.json", "vqd.json", ".in-use"}


@pytest.mark.usefixtures("scripted")
def test_the_bench_compares_what_this_machine_can_run(folder: Path, repository: Path) -> None:
    def copied(model: Path, target: Path, backend: Backend, dtype: str) -> None:
        """What is exported already takes no time."""
        shutil.copytree(folder / "python" if backend is Backend.PYTHON else repository, target)

    ways = (Way(Backend.PYTHON, Precision.FP32), Way(Backend.ONNX, Precision.FP32))
    report = measure_backends(folder / "model", 3, 1, ways, copied)
    assert [line.what.partition(" (")[0] for line in report.lines if line.bound is not None] == [
        *(f"Grids that differ, {way.name}, modules, batch of {size}" for way in ways for size in SIZES),
        "Grids that differ, onnx fp32 and torchscript fp32",
    ]
    assert all(line.value == 0 for line in report.lines if line.bound == 0)
    assert all(line.value > 0 for line in report.lines if line.unit == "ms")
