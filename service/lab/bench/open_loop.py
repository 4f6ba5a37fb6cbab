"""Requests that arrive at random, whether or not earlier ones are answered: what they wait for, at several loads."""

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from tqdm import tqdm

from service.engine.scheduler import Scheduler
from service.errors import Unavailable
from service.lab.bench.arrivals import Mix, Rate, poisson
from service.lab.bench.closed_batches import ClosedBatches
from service.lab.bench.levels import Level, Served, count_errors
from service.lab.bench.load import Reply, press
from service.lab.bench.simulation import ModelTimes, VisitRow, simulate
from service.local.parts import CommandPart
from service.local.processes import spawn
from service.local.supervisor import Supervisor
from service.settings import Settings, read_settings

CLIENTS = 16
"""Of the closed loop that shows the capacity."""
WARM_UP = 32
CLOSED_WORKER = (sys.executable, "-P", "-m", "service.lab.bench.closed_batches")


class Policy(StrEnum):
    STEP = "step"
    REQUEST = "request"


SCHEDULERS: dict[Policy, Callable[[int, float], Scheduler[VisitRow]]] = {
    Policy.STEP: Scheduler,
    Policy.REQUEST: ClosedBatches,
}


@dataclass(frozen=True)
class Trial:
    """What is asked of each service. ``times``: simulate the same with them."""

    mix: Mix
    rates: Sequence[Rate]
    requests: int
    deadline_s: float
    seed: int = 0
    times: ModelTimes | None = None
    api_key: str = field(default="", repr=False)


class ClosedWorker(CommandPart):
    def launch(self) -> None:
        self.process = spawn(CLOSED_WORKER, self.log, self.environment)


@contextmanager
def own_service(policy: Policy, settings: Settings) -> Iterator[str]:
    """Redis, Triton, gateway and a worker of this policy, on free ports → its address."""
    with TemporaryDirectory(prefix="vqd-load-") as name:
        folder = Path(name)
        supervisor = Supervisor(settings, folder)
        supervisor.environment["VQD_LOG_LEVEL"] = "WARNING"
        if policy is Policy.REQUEST:
            grace_s = settings.drain_s + 5
            worker = ClosedWorker("worker", supervisor.environment, folder / "worker.log", grace_s)
            supervisor.models[0].worker.server = worker
        with supervisor:
            supervisor.wait_ready()
            yield supervisor.url


def warm_up(url: str, trial: Trial) -> None:
    """TorchScript looks again at each batch size that it has not seen for long: let all sizes pass."""
    short = replace(trial, requests=WARM_UP)
    rate = capacity(url, short)
    ask(url, short, "warm-up", poisson(0.6 * rate, WARM_UP))


def capacity(url: str, trial: Trial) -> float:
    """Requests per second of clients without pause; Unavailable when one gets no picture."""
    replies = ask(url, trial, "capacity")
    for reply in replies:
        reply.require()
    return trial.requests / (max(reply.ended for reply in replies) - min(reply.began for reply in replies))


def ask(url: str, trial: Trial, what: str, due: Sequence[float] | None = None) -> list[Reply]:
    """The trial's requests, by ``CLIENTS`` without pause, or when they are due, however many are under way."""
    cases, key = trial.mix.requests(trial.requests), trial.api_key
    with tqdm(total=len(cases), desc=what, unit="req", leave=False) as bar:
        try:
            return asyncio.run(press(url, cases, None if due else CLIENTS, due, lambda _: bar.update(), key))
        except httpx.TransportError as error:
            raise Unavailable(f"no service answers at {url}: {error}") from error


def served(reply: Reply, start: float) -> Served:
    """``first`` with all that the answer's way took, for nobody knows how much of it was before the job's beginning."""
    answer = reply.require()
    timings = answer["timings"]
    first = reply.seconds - timings["total_s"] + timings["first_s"]
    return Served(reply.began - start, first, reply.seconds, timings["first_call"] or 0, len(answer["images"]))


def measure(url: str, policy: Policy, trial: Trial, most: float) -> Iterator[Level]:
    """One load after the other. ``most``: the capacity."""
    for rate in trial.rates:
        per_second = rate.per_second(most)
        due = poisson(per_second, trial.requests, trial.seed)
        replies = ask(url, trial, f"{policy}, {per_second:.2f}/s", due)
        start = replies[0].began - due[0]
        good = [served(reply, start) for reply in replies if reply.answer]
        errors = count_errors(reply.error for reply in replies)
        best = simulated(policy, trial, due) if trial.times else []
        yield Level(policy, trial.mix, rate.share(most), per_second, trial.deadline_s, good, errors, best)


def simulated(policy: Policy, trial: Trial, due: Sequence[float]) -> list[Served]:
    assert trial.times
    settings = read_settings()
    target_s = settings.call_target_ms / 1000
    cases = trial.mix.requests(trial.requests)
    return simulate(cases, due, trial.times, SCHEDULERS[policy], target_s, settings.max_rows)


def press_service(url: str, trial: Trial) -> Iterator[Level]:
    """A running service, as it is."""
    warm_up(url, trial)
    yield from measure(url, Policy.STEP, trial, capacity(url, trial))


def press_policies(policies: Sequence[Policy], settings: Settings, trial: Trial) -> Iterator[Level]:
    """Services of our own, one after the other, all at shares of what the first can do."""
    most = 0.0
    for policy in policies:
        with own_service(policy, settings) as url:
            warm_up(url, trial)
            most = most or capacity(url, trial)
            yield from measure(url, policy, trial, most)
