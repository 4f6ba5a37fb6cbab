"""What ``export`` writes: configs of both backends against the table and against TorchScript, files whole and last."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from torch import Tensor, nn
from triton_modules import SHAPES, tiny_info, tiny_modules
from tritonclient.grpc import model_config_pb2

from service.condition import Condition
from service.errors import SetupError
from service.export.config import Backend, render_config
from service.export.files import write_repository
from service.export.fingerprint import is_export_of
from service.models.card import REFERENCE as REFERENCE_FOLDER
from service.serving import ModelInfo
from service.triton.contract import Model, Shapes, diffusion_step, models_of

# torch deprecates TorchScript; Triton's backends still load nothing else.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

MODELS = models_of(Condition.TEXT)
ROOT = Path(__file__).parents[2]
REFERENCE = Shapes(tokens=64, text_positions=24, text_width=384, codes=256, image_height=32, image_width=32)


def parsed(text: str) -> Any:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def tensors(entries: Any) -> list[tuple[str, str, list[int]]]:
    names = model_config_pb2.DataType
    return [(entry.name, names.Name(entry.data_type), list(entry.dims)) for entry in entries]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_committed_config_is_the_rendered_one(model: Model) -> None:
    committed = (ROOT / "model_repository" / model.name / "config.pbtxt").read_text()
    assert committed == render_config(model, REFERENCE, Backend.PYTHON)


def test_the_table_is_the_one_of_the_design() -> None:
    config = parsed(render_config(diffusion_step(Condition.TEXT), REFERENCE, Backend.PYTHON))
    assert tensors(config.input)[:3] == [
        ("tokens", "TYPE_INT32", [64]),
        ("pinned", "TYPE_INT32", [64]),
        ("contexts", "TYPE_FP16", [-1, 24, 384]),
    ]
    assert ("weights", "TYPE_FP32", [-1, -1]) in tensors(config.input)
    assert tensors(config.input)[-1] == ("uniforms", "TYPE_FP32", [-1, 64, 2])
    assert tensors(config.output) == [("tokens_out", "TYPE_INT32", [64]), ("purity", "TYPE_FP16", [64])]
    assert config.max_batch_size == 16
    assert not config.HasField("dynamic_batching")


@pytest.mark.parametrize("backend", [Backend.PYTHON, Backend.PYTORCH])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_config_agrees_with_the_torchscript(model: Model, backend: Backend, tmp_path: Path) -> None:
    write_repository(tiny_modules(), tiny_info(), SHAPES, b"{}", tmp_path, backend)
    config = parsed((tmp_path / model.name / "config.pbtxt").read_text())
    module = torch.jit.load(str(tmp_path / model.name / "1/model.pt"))
    arguments = module.forward.schema.arguments[1:]
    assert [argument.name for argument in arguments] == [entry.name for entry in config.input]
    assert {str(argument.type) for argument in arguments} == {"Tensor"}

    def numpy_name(entry: Any) -> str:
        wire = model_config_pb2.DataType.Name(entry.data_type).removeprefix("TYPE_")
        return {"FP16": "float16", "FP32": "float32"}.get(wire, wire.lower())

    rows = 3
    inputs = [
        torch.zeros(rows, *(abs(dim) for dim in e.dims), dtype=getattr(torch, numpy_name(e))) for e in config.input
    ]
    result = module(*inputs)
    outputs = list(result) if isinstance(result, tuple) else [result]
    assert [(str(o.dtype), list(o.shape)) for o in outputs] == [
        (f"torch.{numpy_name(entry)}", [rows, *entry.dims]) for entry in config.output
    ]


def test_pytorch_backend_variant(tmp_path: Path) -> None:
    write_repository(tiny_modules(), tiny_info(), SHAPES, b"{}", tmp_path, Backend.PYTORCH)
    for model in MODELS:
        config = parsed((tmp_path / model.name / "config.pbtxt").read_text())
        assert (config.backend, config.platform) == ("pytorch", "pytorch_libtorch")
        assert [sample.batch_size for sample in config.model_warmup] == [1, 2, 4]
        assert not (tmp_path / model.name / "1/model.py").exists()
        for name, entry in config.model_warmup[0].inputs.items():
            size = np.prod(list(entry.dims)) * next(t for t in model.inputs if t.name == name).dtype.numpy.itemsize
            assert (tmp_path / model.name / "warmup" / entry.input_data_file).stat().st_size == size


def test_changing_the_backend_leaves_nothing_of_the_other(tmp_path: Path) -> None:
    for backend in (Backend.PYTHON, Backend.PYTORCH, Backend.PYTHON):
        write_repository(tiny_modules(), tiny_info(), SHAPES, b"{}", tmp_path, backend)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    per_model = [
        f"{model.name}/{name}"
        for model in MODELS
        for name in ("1/model.pt", "1/model.py", "1/graphs.py", "config.pbtxt")
    ]
    assert files == sorted([*per_model, "tokenizer.json", "vqd.json"])


def test_the_workers_two_files(tmp_path: Path) -> None:
    write_repository(tiny_modules(), tiny_info(), SHAPES, b'{"version": "1.0"}', tmp_path)
    assert ModelInfo.model_validate_json((tmp_path / "vqd.json").read_bytes()) == tiny_info()
    assert (tmp_path / "tokenizer.json").read_bytes() == b'{"version": "1.0"}'


class WrongNames(nn.Module):
    def forward(self, codes: Tensor) -> Tensor:
        return codes


class WrongType(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return torch.zeros(tokens.shape[0], 6, 8, 3)


@pytest.mark.parametrize(
    ("decoder", "reason"),
    [(WrongNames(), r"forward takes \['codes'\]"), (WrongType(), r"image is torch.float32 \[2, 6, 8, 3\]")],
    ids=["names", "dtype"],
)
def test_a_module_that_breaks_the_contract_writes_nothing(decoder: nn.Module, reason: str, tmp_path: Path) -> None:
    modules = replace(tiny_modules(), image_decoder=torch.jit.script(decoder))
    with pytest.raises(SetupError, match=reason):
        write_repository(modules, tiny_info(), SHAPES, b"{}", tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_a_failed_export_does_not_look_complete(tmp_path: Path) -> None:
    write_repository(tiny_modules(), tiny_info(), SHAPES, b"{}", tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.json").mkdir()
    with pytest.raises(OSError, match="tokenizer"):
        write_repository(tiny_modules(), tiny_info(), SHAPES, b"{}", tmp_path)
    assert not (tmp_path / "vqd.json").exists()


@pytest.mark.parametrize(
    ("change", "stands"),
    [({}, True), ({"code": "0" * 64}, False), ({"code": ""}, False), ({"sha256": "0" * 64}, False)],
)
def test_an_export_of_another_model_or_by_other_code_is_out_of_date(
    change: dict[str, str], stands: bool, exported: Path, tmp_path: Path
) -> None:
    info = ModelInfo.model_validate_json((exported / "vqd.json").read_bytes())
    (tmp_path / "vqd.json").write_text(info.model_copy(update=change).model_dump_json())
    assert is_export_of(tmp_path, REFERENCE_FOLDER) is stands
