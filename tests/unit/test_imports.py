"""The shape of the code: who may import whom, no cycles, no hidden imports, no torch in gateway and worker."""

import subprocess
import sys
from pathlib import Path

import pytest
from import_graph import cycle, graph, read_modules

from service.export.fingerprint import DECIDES, PACKAGE

ROOT = Path(__file__).parents[2]
MODULES = read_modules(ROOT / "service")
LEVELS = (
    ("condition", "errors"),
    ("folders", "messages", "serving", "settings", "sockets", "storage", "telemetry"),
    ("diffusion", "models"),
    ("provenance", "queue", "triton"),
    ("engine", "export"),
    ("gateway", "worker"),
    ("client", "grid", "local", "replay", "testing"),
    ("lab",),
    ("cli",),
)
"""The rooms of the service, lowest first: none imports from a level above its own."""
APART = {
    "folders": ("service.messages", "service.settings", "service.sockets", "service.telemetry"),
    "sockets": ("service.messages", "service.settings", "service.telemetry"),
    "storage": ("service.messages", "service.sockets", "service.telemetry"),
    "diffusion": ("service.models",),
    "provenance": ("service.models", "service.queue", "service.triton", "torch"),
    "queue": ("service.diffusion", "service.models", "service.triton", "torch"),
    "triton": ("service.diffusion", "service.models", "service.queue", "torch"),
    "engine": ("service.export", "service.models", "service.queue", "torch"),
    "export": ("service.engine", "service.queue"),
    "gateway": ("service.engine", "service.export", "service.models", "service.triton", "service.worker", "torch"),
    "worker": ("service.export", "service.gateway", "service.models", "torch"),
    "client": ("service.gateway", "service.queue", "service.settings", "service.worker", "torch"),
    "replay": ("service.gateway", "service.queue", "service.settings", "service.worker", "torch"),
    "testing": ("service.gateway", "service.queue", "service.worker", "torch"),
}
"""What a room has nothing to do with, although it is on its own level or below."""


def forbidden(room: str) -> list[str]:
    level = next(number for number, rooms in enumerate(LEVELS) if room in rooms)
    above = [f"service.{other}" for rooms in LEVELS[level + 1 :] for other in rooms]
    return [*above, *APART.get(room, ())]


def belongs(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


@pytest.mark.parametrize("room", [room for rooms in LEVELS for room in rooms])
def test_imports_go_one_way(room: str) -> None:
    for module in MODULES:
        if belongs(module.name, f"service.{room}"):
            wrong = [name for name in module.imports for other in forbidden(room) if belongs(name, other)]
            assert not wrong, f"{module.name} imports {wrong}"


def test_every_room_has_a_level() -> None:
    rooms = {module.name.split(".")[1] for module in MODULES if module.name != "service"}
    assert rooms == {room for rooms in LEVELS for room in rooms}


def importers(package: str) -> set[str]:
    return {module.name for module in MODULES if any(name.startswith(package) for name in module.imports)}


def test_only_the_client_imports_tritonclient() -> None:
    """The fake and the configs need its messages."""
    ours = ("triton.channel", "triton.client", "testing.fake_triton", "export.config")
    assert importers("tritonclient") == {f"service.{name}" for name in ours}


def test_only_storage_imports_obstore() -> None:
    """When it is asked for a bucket: without the setting there must be no cost."""
    assert importers("obstore") == {"service.storage"}


def test_only_otel_imports_opentelemetry() -> None:
    """It imports the SDK when it is asked for a tracer: without the setting there must be no cost. The bench reads what
    was sent."""
    assert importers("opentelemetry") == {"service.telemetry.otel", "service.lab.bench.spans"}


def test_only_the_command_imports_by_string() -> None:
    """What is imported by string, neither mypy nor the tests here can see."""
    assert {module.name for module in MODULES if module.imports_by_string()} == {"service.cli.app"}


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
    planning = {f"service.diffusion.{name}" for name in ("guidance_schedule", "noise", "plan", "samplers", "walks")}
    plain = ("condition", "diffusion", "errors", "folders", "messages", "serving", "triton.repository")
    others = planning | {f"service.{name}" for name in plain}
    assert set(found) - decides == others


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


@pytest.mark.parametrize("module", ["app", "up", "generate", "gateway", "worker", "keys"])
def test_what_must_be_small_or_quick_to_start_needs_neither_torch_nor_the_lab(module: str) -> None:
    code = f"import sys; sys.modules['torch'] = sys.modules['service.lab'] = None; import service.cli.{module}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
