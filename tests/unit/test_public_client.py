"""What ``import vqd`` gives, and what it costs."""

import subprocess
import sys
import tomllib
from pathlib import Path

from import_graph import read_modules

import vqd
from service.errors import VqdError

ROOT = Path(__file__).parents[2]
HEAVY = ("fastapi", "numpy", "prometheus_client", "redis", "tokenizers", "torch", "tqdm", "tritonclient", "typer")
"""What the client has no use for."""
ROOMS = {"client", "errors", "messages"}


def test_its_names_are_there_and_none_else() -> None:
    assert vqd.__all__ == sorted(vqd.__all__)
    shown = {name for name, value in vars(vqd).items() if not name.startswith("_")}
    assert {*vqd.__all__} == shown
    assert all(issubclass(vqd.__dict__[name], VqdError) for name in vqd.__all__ if hasattr(vqd.__dict__[name], "slug"))


def test_it_names_what_is_the_client_s_and_has_no_code() -> None:
    (module,) = read_modules(ROOT / "vqd")
    assert {name.split(".")[1] for name in module.imports if name.startswith("service.")} == ROOMS
    assert list(module.functions()) == []


def test_it_loads_little() -> None:
    code = f"import sys, vqd; loaded = {{*sys.modules}} & {{*{HEAVY}}}; assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_type_checkers_may_believe_its_types() -> None:
    assert (ROOT / "vqd/py.typed").exists()
    assert (ROOT / "service/py.typed").exists()


def test_an_editable_install_finds_it_wherever_one_stands() -> None:
    """By a plain path. By setuptools' other way, which comes last, the folder of a clone named vqd is in front."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert table["package-dir"] == {"": "."}
    assert {*table["packages"]["find"]["include"]} == {"service*", "vqd*"}
