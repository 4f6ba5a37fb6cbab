"""The shape of the code: who may import whom, no cycles, no hidden imports, no torch in gateway and worker."""

import subprocess
import sys
from pathlib import Path

import pytest
from import_graph import cycle, graph, read_modules

from service.export.fingerprint import DECIDES, PACKAGE

ROOT = Path(__file__).parents[2]
MODULES = read_modules(ROOT / "service")
FORBIDDEN = {
    "service.gateway": ("service.worker", "service.triton", "service.models", "service.lab.training", "torch"),
    "service.worker": ("service.gateway", "service.models", "service.lab.training", "torch"),
    "service.queue": ("service.worker", "service.gateway", "service.triton", "service.models", "torch"),
    "service.diffusion": ("service.worker", "service.gateway", "service.queue", "service.triton"),
    "service.triton": ("service.worker", "service.gateway", "service.queue"),
}


@pytest.mark.parametrize(("layer", "others"), FORBIDDEN.items())
def test_imports_go_one_way(layer: str, others: tuple[str, ...]) -> None:
    for module in MODULES:
        if module.name.startswith(layer):
            for name in module.imports:
                assert not name.startswith(others), f"{module.name} imports {name}"


def importers(package: str) -> set[str]:
    return {module.name for module in MODULES if any(name.startswith(package) for name in module.imports)}


def test_only_the_client_imports_tritonclient() -> None:
    assert importers("tritonclient") == {"service.triton.client", "service.testing.fake_triton"}


def test_only_otel_imports_opentelemetry() -> None:
    """It imports the SDK when it is asked for a tracer: without the setting there must be no cost."""
    assert importers("opentelemetry") == {"service.telemetry.otel"}


def test_no_cycles() -> None:
    assert cycle(graph(MODULES)) == []


def test_the_code_of_an_export_is_all_that_it_is_made_of() -> None:
    """Or an upgrade could leave an export in use that this version would make another way."""
    edges = graph(MODULES)
    found = ["service.export.build"]
    for module in found:  # grows while it is walked
        found += [other for other in edges[module] if other not in found]
    deciding = {path for pattern in DECIDES for path in PACKAGE.glob(pattern)}
    decides = {module.name for module in MODULES if module.path in deciding}
    assert set(found) - decides == {"service.errors", "service.messages", "service.triton.repository"}


def test_no_import_of_ours_inside_a_function() -> None:
    assert {module.name: hidden for module in MODULES if (hidden := module.hidden_imports())} == {}


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


@pytest.mark.parametrize(
    "module", ["service.cli.app", "service.gateway.app", "service.worker.main", "service.local.up"]
)
def test_what_must_be_small_or_quick_to_start_needs_no_torch(module: str) -> None:
    code = f"import sys; sys.modules['torch'] = None; import {module}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
