"""The python backend's own model.py, without Triton: what it warms up, and what it says."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

PATH = Path(__file__).parents[2] / "service/export/model.py"
SIZES = [1, 2, 4, 8, 16]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def backend(said: list[str], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    triton = ModuleType("triton_python_backend_utils")
    triton.Logger = SimpleNamespace(log_info=said.append)
    monkeypatch.setitem(sys.modules, triton.__name__, triton)
    spec = spec_from_file_location("backend_model", PATH)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def warmed(backend: ModuleType, row_s: float, row_bytes: int = 0) -> list[int]:
    """The batch sizes that are warmed when a row takes so long, and so much memory, which is touched."""
    sizes = []

    class Slow(backend.TritonPythonModel):
        name = "diffusion_step"

        def warm(self, inputs: Any, sample: Any, rows: int) -> float:
            sizes.append(rows)
            bytearray(b"x") * (row_bytes * rows)
            return row_s * rows

    Slow().warm_up([], {}, SIZES)
    return sizes


def test_a_quick_model_is_warmed_at_every_size_and_says_so(backend: ModuleType, said: list[str]) -> None:
    assert warmed(backend, row_s=0.1) == SIZES
    assert said[0] == "diffusion_step: warming 1 row (1 of 5)"
    assert said[2] == "diffusion_step: warming 4 rows (3 of 5)"
    assert len(said) == 5


def test_sizes_that_would_take_too_long_are_left_out(backend: ModuleType, said: list[str]) -> None:
    assert warmed(backend, row_s=1.0) == [1, 2, 4]
    assert said[-1].startswith("diffusion_step: 4 rows took 4.0 s and ")
    assert said[-1].endswith("; not warming 8, 16, slower at first")
    assert warmed(backend, row_s=7) == [1], "one row always is"


def test_sizes_that_would_not_fit_in_memory_are_left_out(backend: ModuleType, said: list[str], tmp_path: Path) -> None:
    used, row = 2**30, 2**27
    (tmp_path / "memory.max").write_text(f"{used + row}\n")
    (tmp_path / "memory.current").write_text(f"{used}\n")
    backend.CGROUP = tmp_path
    assert backend.free_memory() == row
    assert warmed(backend, row_s=0.1, row_bytes=row) == [1]
    assert said[-1].endswith("; not warming 2, 4, 8, 16, slower at first")
    (tmp_path / "memory.max").write_text("max\n")
    assert backend.free_memory() > row
