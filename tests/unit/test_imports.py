"""The shape of the code: who may import whom, no cycles, no hidden imports, no torch in gateway and worker."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.export.fingerprint import DECIDES, PACKAGE

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "service").rglob("*.py"))
LEVELS = (
    ("errors",),
    ("messages", "settings", "sockets", "telemetry"),
    ("diffusion", "models"),
    ("queue", "triton"),
    ("engine", "export"),
    ("gateway", "worker"),
    ("client", "local", "testing"),
    ("lab",),
    ("cli",),
)
"""The rooms of the service, lowest first: none imports from a level above its own."""
APART = {
    "sockets": ("service.messages", "service.settings", "service.telemetry"),
    "queue": ("service.diffusion", "service.models", "service.triton", "torch"),
    "triton": ("service.diffusion", "service.models", "service.queue", "torch"),
    "engine": ("service.export", "service.models", "service.queue", "torch"),
    "export": ("service.engine", "service.queue"),
    "gateway": ("service.engine", "service.export", "service.models", "service.triton", "service.worker", "torch"),
    "worker": ("service.export", "service.gateway", "service.models", "torch"),
    "client": ("service.gateway", "service.queue", "service.settings", "service.worker", "torch"),
    "testing": ("service.gateway", "service.queue", "service.worker", "torch"),
}
"""What a room has nothing to do with, although it is on its own level or below."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        return [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def graph() -> dict[str, set[str]]:
    """Module → modules of ours that it imports at its top level or anywhere else."""
    names = {module_name(path) for path in FILES}
    return {
        module_name(path): {
            name for node in ast.walk(ast.parse(path.read_text())) for name in imported(node) if name in names
        }
        for path in FILES
    }


def forbidden(room: str) -> list[str]:
    level = next(number for number, rooms in enumerate(LEVELS) if room in rooms)
    above = [f"service.{other}" for rooms in LEVELS[level + 1 :] for other in rooms]
    return [*above, *APART.get(room, ())]


def belongs(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


@pytest.mark.parametrize("room", [room for rooms in LEVELS for room in rooms])
def test_imports_go_one_way(room: str) -> None:
    for path in FILES:
        if belongs(module_name(path), f"service.{room}"):
            for node in ast.walk(ast.parse(path.read_text())):
                for name in imported(node):
                    wrong = [other for other in forbidden(room) if belongs(name, other)]
                    assert not wrong, f"{path.relative_to(ROOT)} imports {name}"


def test_every_room_has_a_level() -> None:
    rooms = {module_name(path).split(".")[1] for path in FILES if module_name(path) != "service"}
    assert rooms == {room for rooms in LEVELS for room in rooms}


def test_only_the_client_imports_tritonclient() -> None:
    importers = {
        module_name(path)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if any(name.startswith("tritonclient") for name in imported(node))
    }
    assert importers == {
        "service.triton.channel",
        "service.triton.client",
        "service.testing.fake_triton",
        "service.export.config",
    }


def test_only_otel_imports_opentelemetry() -> None:
    """It imports the SDK when it is asked for a tracer: without the setting there must be no cost."""
    importers = {
        module_name(path)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if any(name.startswith("opentelemetry") for name in imported(node))
    }
    assert importers == {"service.telemetry.otel"}


def test_only_the_command_imports_by_string() -> None:
    """What is imported by string, neither mypy nor the tests here can see."""
    importers = {module_name(path) for path in FILES if re.search("import_module|__import__", path.read_text())}
    assert importers == {"service.cli.app"}


def test_no_cycles() -> None:
    edges = graph()
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"cycle: {' → '.join([*path, module])}"
        if module not in done:
            for other in edges[module]:
                if other != module:
                    visit(other, (*path, module))
            done.add(module)

    for module in edges:
        visit(module, ())


def test_the_code_of_an_export_is_all_that_it_is_made_of() -> None:
    """Or an upgrade could leave an export in use that this version would make another way."""
    edges = graph()
    found = ["service.export.build"]
    for module in found:  # grows while it is walked
        found += [other for other in edges[module] if other not in found]
    decides = {module_name(path) for pattern in DECIDES for path in PACKAGE.glob(pattern)}
    others = {"service.diffusion.plan", "service.errors", "service.messages", "service.triton.repository"}
    assert set(found) - decides == others


def test_no_import_of_ours_inside_a_function() -> None:
    for path in FILES:
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for node in ast.walk(function):
                    assert not any(name.startswith("service") for name in imported(node)), f"{path}: {function.name}"


def test_processes_without_traces_load_no_exporter() -> None:
    """FastAPI itself imports the API, and redis-py the metrics of the SDK when it is there: neither is ours."""
    code = """
import sys
from service.gateway.app import create_app
import service.worker.main
from service.settings import Settings
create_app(Settings())
loaded = [name for name in sys.modules if name.startswith(("opentelemetry.sdk.trace", "opentelemetry.exporter"))]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize("module", ["app", "up", "generate", "gateway", "worker"])
def test_what_must_be_small_or_quick_to_start_needs_neither_torch_nor_the_lab(module: str) -> None:
    code = f"import sys; sys.modules['torch'] = sys.modules['service.lab'] = None; import service.cli.{module}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
