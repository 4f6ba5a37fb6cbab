"""Everything that the service promises in numbers, measured in one run and held against its bound."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from service.export.build import ensure_exported
from service.lab.bench import together
from service.lab.bench.bare import Bare
from service.lab.bench.cases import mixed, plain
from service.lab.bench.flips import flips_of_modules, flips_of_service
from service.lab.bench.joining import measure_joining
from service.lab.bench.live import LiveService
from service.lab.bench.peer import Peer
from service.lab.bench.report import Line, Report, machine

WARM_UP = 3
GIB = 2**30


@dataclass(frozen=True)
class Effort:
    """How often each thing is done."""

    rounds: int = 5
    grids: int = 500

    @property
    def starts(self) -> int:
        return min(3, self.rounds)

    @property
    def requests(self) -> int:
        """Requests alone, and arrivals while others run."""
        return 8 * self.rounds

    @property
    def sample(self) -> int:
        """Grids that go through the service as well."""
        return min(48, self.grids)


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder for one run: repository, Redis data, logs."""
    with tempfile.TemporaryDirectory(prefix="vqd-bench-") as folder:
        yield Path(folder)


def facts(model: Path, **options: object) -> dict[str, Any]:
    """To be called before the work: it notes how busy the machine is."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"began": now, "machine": machine(), "model_folder": str(model), "options": options}


def measure_starts(model: Path, folder: Path, count: int) -> list[Line]:
    """``vqd up`` without a repository, then with the one that it has exported."""
    ready_s = []
    for _ in tqdm(range(1 + count), desc="starts", unit="start", leave=False):
        with LiveService(model, folder / "repository", folder) as service:
            ready_s.append(service.ready_s)
    return [
        Line("`vqd up` to ready", "s", ready_s[1:], 20),
        Line("`vqd up` to ready the first time, export included", "s", ready_s[:1], 20),
    ]


def measure_memory(service: LiveService) -> list[Line]:
    """After load, with every process that ``vqd up`` started and itself."""
    memory = service.memory()
    return [
        Line(f"Resident memory of all {memory.processes} processes together", "GiB", [memory.rss / GIB], 3),
        Line("The same with shared pages counted once", "GiB", [memory.pss / GIB]),
    ]


def measure_alone(service: LiveService, bare: Bare, count: int) -> list[Line]:
    """One request at a time, each followed by the same calls on the bare modules."""
    answered_ms, waited_ms, whole_ms, calls_made = [], [], [], []
    for fields in tqdm(plain(WARM_UP + count), desc="alone", unit="req", leave=False):
        before = service.worker_count("vqd_step_seconds_count")
        reply = together.ask_all(service.url, [fields], 1)[0]
        calls = int(service.worker_count("vqd_step_seconds_count") - before)
        timings = reply.require()["timings"]
        models_s = timings["encode_s"] + timings["steps_s"] + timings["decode_s"]
        answered_ms.append(1000 * (timings["total_s"] - models_s))
        waited_ms.append(1000 * (reply.seconds - models_s))
        whole_ms.append(1000 * (reply.seconds - bare.seconds([fields], calls)))
        calls_made.append(calls)
    calls_s = "encode_s + steps_s + decode_s"
    return [
        Line(f"One request alone: total_s − ({calls_s}) of its answer", "ms", answered_ms[WARM_UP:], 30),
        Line(f"One request alone: wall time at the client − ({calls_s})", "ms", waited_ms[WARM_UP:], 30),
        Line("One request alone: wall time at the client − bare time of the same calls", "ms", whole_ms[WARM_UP:], 30),
        Line("One request alone: step calls", "", calls_made[WARM_UP:]),
    ]


def measure_bounds(model: Path, effort: Effort) -> Report:
    """Everything. Raises SetupError or Unavailable when the service does not do its part."""
    about = facts(model, rounds=effort.rounds, grids=effort.grids)
    with workplace() as folder:
        repository = folder / "repository"
        lines = measure_starts(model, folder, effort.starts)
        bare = Bare(repository)
        cases = mixed(effort.grids)
        alone, flips = flips_of_modules(bare, cases)
        with LiveService(model, repository, folder) as service:
            lines += measure_alone(service, bare, effort.requests)
            lines += together.lines(together.measure_together(service, bare, Peer(model, bare), effort.rounds))
            flips += flips_of_service(service.url, cases[: effort.sample], alone[: effort.sample])
            lines += measure_memory(service)
        joined = measure_joining(repository, folder / "joining", effort.requests)
    lines.append(Line("First evaluation after admission is in call", "", joined, 2, worst=True))
    return Report(
        [*lines, *(one.line() for one in flips)], about | {"model": bare.info.name, "sha256": bare.info.sha256}
    )


def measure_flips(model: Path, grids: int) -> Report:
    """Only the flip rates."""
    about = facts(model, grids=grids)
    effort = Effort(grids=grids)
    with workplace() as folder:
        repository = folder / "repository"
        ensure_exported(model, repository)
        bare, cases = Bare(repository), mixed(grids)
        alone, flips = flips_of_modules(bare, cases)
        with LiveService(model, repository, folder) as service:
            flips += flips_of_service(service.url, cases[: effort.sample], alone[: effort.sample])
    return Report([one.line() for one in flips], about | {"model": bare.info.name, "sha256": bare.info.sha256})
