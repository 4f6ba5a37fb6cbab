"""A service of our own to measure: ``vqd up`` as a user would start it, on free ports, in a process of its own."""

from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import httpx
from prometheus_client.parser import text_string_to_metric_families

from service.local.probe import probe
from service.local.processes import OURSELVES, LocalServer, end, spawn
from service.sockets import free_port

READY_LIMIT_S = 600.0
"""The supervisor gives up long before; this is for what it does before that, on a machine that does other things."""
STOP_LIMIT_S = 40.0


@dataclass(frozen=True)
class Memory:
    """Of a process and all its descendants. ``rss``: the plain sum, which counts shared pages once per process;
    ``pss`` divides them among their users. Bytes."""

    processes: int
    rss: int
    pss: int


def descendants(root: int) -> list[int]:
    """``root`` and every process below it."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(stat.parent.name)] = int(after_name[1])
    found = [root]
    for pid in found:  # grows while it is walked
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def memory_of(root: int) -> Memory:
    """Resident memory now; a process that ends meanwhile is left out."""
    sizes = []
    for pid in descendants(root):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        kib = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines() if line.endswith(" kB")}
        sizes.append((kib["Rss"] * 1024, kib["Pss"] * 1024))
    return Memory(len(sizes), sum(rss for rss, _ in sizes), sum(pss for _, pss in sizes))


class LiveService(LocalServer):
    """``ready_s``: from starting the command to /readyz saying yes."""

    name, limit_s = "vqd up", READY_LIMIT_S

    def __init__(self, model: Path, repository: Path, folder: Path) -> None:
        port, metrics_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.metrics_url = f"http://127.0.0.1:{metrics_port}/metrics"
        self.log = folder / "up.log"
        options = {"model": model, "repository": repository, "port": port, "out": folder}
        self.command = [*OURSELVES, "up"]
        self.command += [f"--{name}={value}" for name, value in options.items()]
        self.environment = {"VQD_WORKER_METRICS_PORT": str(metrics_port), "VQD_LOG_LEVEL": "WARNING"}

    def launch(self) -> None:
        self.process = spawn(self.command, self.log, self.environment)

    def start(self) -> None:
        began = monotonic()
        super().start()
        self.ready_s = monotonic() - began

    def stop(self) -> None:
        end(self.process, STOP_LIMIT_S)

    def answers(self) -> bool:
        return probe(f"{self.url}/readyz") is None

    def memory(self) -> Memory:
        return memory_of(self.process.pid)

    def worker_count(self, sample: str) -> float:
        """One number of the worker's /metrics, such as ``vqd_step_seconds_count``: the step calls it has made."""
        families = text_string_to_metric_families(httpx.get(self.metrics_url, timeout=5, trust_env=False).text)
        return next(s.value for family in families for s in family.samples if s.name == sample)
