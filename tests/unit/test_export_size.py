"""What an export computes in, and what it says while it goes on."""

import json
import sys
from pathlib import Path

import pytest
import torch
from peers.random_models import RELEASED_FAMILY, randomise, step_inputs
from unit.model_folder import write_model

from service.export.build import ensure_exported, export_model, is_promised
from service.export.config import Backend
from service.export.fingerprint import is_export_of
from service.export.precision import Precision
from service.export.written import WORTH_WATCHING, watch, watched
from service.local.interrupts import Interrupts
from service.local.live import LiveLine
from service.local.processes import spawn
from service.local.up import follow
from service.models.transformer import VQTransformer
from service.models.weights import read_weights

# torch deprecates TorchScript; Triton's backends still load nothing else.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tmp_path_factory.mktemp("size") / "model"
    write_model(model)
    return model


def types(repository: Path, model: str) -> set[torch.dtype]:
    module = torch.jit.load(str(repository / model / "1/model.pt"))
    tensors = {**module.state_dict(), **dict(module.named_parameters())}
    return {tensor.dtype for name, tensor in tensors.items() if name.startswith("transformer.")}


def test_the_network_is_in_the_dtype_that_was_asked_for(folder: Path, tmp_path: Path) -> None:
    fingerprints = set()
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        repository = tmp_path / name
        info = export_model(folder, repository, dtype=name)
        assert types(repository, "diffusion_step") == {dtype}
        assert json.loads((repository / "vqd.json").read_text())["dtype"] == info.dtype == name
        assert f'string_value: "{info.fingerprint}"' in (repository / "diffusion_step/config.pbtxt").read_text()
        fingerprints.add(info.fingerprint)
    assert len(fingerprints) == 2
    assert export_model(folder, tmp_path / "usual").dtype == Precision.AUTO.decided()


def test_an_export_in_another_dtype_is_not_the_one_that_is_wanted(folder: Path, tmp_path: Path) -> None:
    assert ensure_exported(folder, tmp_path, "fp32")
    assert not ensure_exported(folder, tmp_path, "fp32")
    assert not is_export_of(tmp_path, folder, "bf16")
    assert is_export_of(tmp_path, folder) is (Precision.AUTO.decided() == "fp32")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_are_float32_and_near_those_of_float32(dtype: torch.dtype) -> None:
    inputs = step_inputs(RELEASED_FAMILY)
    tokens, context = inputs["tokens"].long(), inputs["contexts"][:, 0].float()
    network = randomise(VQTransformer(RELEASED_FAMILY), 0)
    half = randomise(VQTransformer(RELEASED_FAMILY), 0).to(dtype)
    with torch.inference_mode():
        network.prepare()
        half.prepare()
        whole, rounded = (n(tokens, torch.tensor([60]), n.memory(context)) for n in (network, half))
    assert rounded.dtype == torch.float32
    error = float((whole - rounded).abs().mean() / whole.std())
    assert 0 < error < 0.05


def test_what_was_not_measured_is_not_promised(folder: Path, tmp_path: Path) -> None:
    cpu_info = tmp_path / "cpuinfo"
    for units, tokens, bf16 in (("avx512_bf16", 64, True), ("avx512_bf16", 16, False), ("avx2", 64, False)):
        cpu_info.write_text(f"flags\t\t: {units}\n")
        promised = {name: Precision(name).same_in_any_batch(tokens, cpu_info) for name in ("fp32", "bf16", "fp16")}
        assert promised == {"fp32": True, "bf16": bf16, "fp16": False}
    assert not export_model(folder, tmp_path / "repository", dtype="fp16").same_in_any_batch
    assert export_model(folder, tmp_path / "repository", dtype="fp32").same_in_any_batch
    promised_by = [backend for backend in Backend if is_promised(backend, Precision.FP32, 64)]
    assert promised_by == [Backend.PYTHON, Backend.PYTORCH]


@pytest.mark.parametrize(
    ("text", "decided"),
    [
        ("model name\t: a bf16 by name\nflags\t\t: fpu avx512_bf16 sse\n", "bf16"),
        ("flags\t\t: fpu amx_bf16\n\nflags\t\t: fpu amx_bf16\n", "bf16"),
        ("Features\t: fp asimd bf16 i8mm\n", "bf16"),
        ("flags\t\t: fpu avx2 avx512f\nbugs\t\t: bf16\n", "fp32"),
        (None, "fp32"),
    ],
    ids=["avx512", "amx", "arm", "none", "no Linux"],
)
def test_auto_is_bf16_where_the_processor_computes_in_it(text: str | None, decided: str, tmp_path: Path) -> None:
    cpu_info = tmp_path / "cpuinfo"
    if text is not None:
        cpu_info.write_text(text)
    assert Precision.AUTO.decided(cpu_info) == decided
    assert Precision.FP16.decided(cpu_info) == "fp16"


def test_how_much_is_read_is_told(folder: Path) -> None:
    shares: list[float] = []
    state = read_weights(folder / "transformer", on_share=shares.append)
    assert shares == sorted(shares)
    assert len(shares) == len(state)
    assert shares[0] < 0.5
    assert 0.8 < shares[-1] <= 1


def test_how_much_is_written_is_said_when_it_is_something_new(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    said = watch(path, 1000, "writing x", pause_s=0.001)
    shown = [next(said)]
    for size in (410, 2000):
        path.write_bytes(bytes(size))
        shown.append(next(said))
    assert shown == [f"exporting: writing x {share} %" for share in (0, 41, 100)]


def test_a_large_file_is_watched_by_another_process(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, said = tmp_path / "model.pt", ""
    path.write_bytes(b"of an export that was interrupted")
    with watched(path, WORTH_WATCHING, "writing x"):
        assert not path.exists()
        path.touch()
        with path.open("r+b") as file:
            file.truncate(WORTH_WATCHING // 4)
        while "exporting: writing x 25 %\n" not in said:
            said += capfd.readouterr().err
    with watched(path, WORTH_WATCHING - 1, "writing y"):
        path.touch()
    assert "y" not in capfd.readouterr().err


TALKS = """
import sys
print("exporting: one\\nvqd: note: no learned null\\nanything\\nexporting: two", file=sys.stderr)
"""


def test_notes_of_an_export_reach_who_started_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, line = tmp_path / "log", LiveLine()
    follow(spawn([sys.executable, "-S", "-c", TALKS], log), log, line, Interrupts())
    captured = capsys.readouterr()
    assert captured.err == "vqd: note: no learned null\n"
    assert captured.out == "exporting: one\nexporting: two\n"
