"""``make chaos``: random kills, stops and restarts of every part under mixed load, and a ledger of every accepted job.

Real gateways, workers and Redis as processes with their default leases; Triton is the shipped fake, which dies, hangs
and sickens as the real one does. Ends with status 1 when a job was lost, ended twice or failed, or came back too late.
"""

import argparse
import contextlib
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from fleet import Fleet, gather, terminal_events
from gateway_harness import until

from service.errors import SetupError
from service.lab.bench.statistics import quantile
from service.local.redis import RedisServer
from service.messages import JobView, Status
from service.settings import Settings
from service.sockets import free_port
from service.testing.fake_triton import STICKY, UNLOADING

OURS = ("lease_ms", "scan_ms", "checkpoint_ms", "call_target_ms")
"""Settings that the tests' fleet has of its own, and this one not."""
WORKERS, CLIENTS, GATEWAYS = 3, 6, 2
PAUSE_S = (0.5, 2.5)
"""Between two faults."""


@dataclass
class Ledger:
    """What was accepted, what was asked to be cancelled, and how long the jobs of killed workers took to move again."""

    accepted: list[str] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    faults: Counter[str] = field(default_factory=Counter)
    recoveries_s: list[float] = field(default_factory=list)
    watched: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Job of a killed worker → when that was, and the evaluation that it had reached."""


class Chaos:
    def __init__(self, folder: Path, seed: int) -> None:
        self.redis = RedisServer(folder / "redis")
        self.redis.start()
        defaults = {name: Settings.model_fields[name].default for name in OURS}
        self.fleet = Fleet(self.redis.url, folder, triton_timeout_s=5, **defaults)
        self.fleet.triton.delay_s = 0.02
        self.choose, self.ledger, self.over = random.Random(seed), Ledger(), threading.Event()
        self.ports = [free_port() for _ in range(GATEWAYS)]
        for port in self.ports:
            self.fleet.start_gateway(port)
        for _ in range(WORKERS):
            self.fleet.start_worker()

    # Load

    def post(self, client: httpx.Client, number: int, choose: random.Random) -> str:
        """Until it is accepted, with one key, as any careful client does."""
        body = {
            "prompt": "a red circle",
            "seed": number,
            "steps": choose.randint(4, 40),
            "n": choose.choice((1, 1, 1, 3)),
            "priority": choose.choice(("interactive", "batch")),
        }
        headers = {"Prefer": "respond-async", "Idempotency-Key": f"chaos-{number}"}
        while True:
            try:
                url = f"http://127.0.0.1:{choose.choice(self.ports)}/generate"
                response = client.post(url, json=body, headers=headers)
                if response.status_code in (200, 202):
                    return str(response.json()["id"])
            except httpx.TransportError:
                pass
            time.sleep(0.1)

    def press(self, first: int) -> None:
        choose = random.Random(first)
        with httpx.Client(timeout=20) as client:
            for number in range(first, first + 10**6):
                if self.over.is_set():
                    return
                job = self.post(client, number, choose)
                self.ledger.accepted.append(job)
                if choose.random() < 0.05:
                    self.cancel(client, job)
                time.sleep(choose.uniform(0, 0.6))

    def cancel(self, client: httpx.Client, job: str) -> None:
        self.ledger.cancelled.add(job)
        with contextlib.suppress(httpx.TransportError):  # whether it was heard shows in its end
            client.delete(f"http://127.0.0.1:{self.ports[0]}/jobs/{job}")

    # Faults

    def victim(self) -> int:
        alive = [place for place, worker in enumerate(self.fleet.workers) if worker.poll() is None]
        return self.choose.choice(alive)

    def kill_worker(self) -> None:
        worker = self.fleet.workers[self.victim()]
        held = self.held_by(worker.pid)
        worker.kill()
        worker.wait()
        self.ledger.watched |= {view.job.id: (time.monotonic(), view.evaluation) for view in held}
        self.fleet.start_worker(ready=False)

    def held_by(self, pid: int) -> list[JobView]:
        recent = [job for job in self.ledger.accepted[-200:] if job not in self.ledger.cancelled]
        owners = gather(
            self.fleet, recent, lambda queue, job: queue.redis.hmget(f"{{vqd}}:job:{job}", "worker", "status")
        )
        mine = [
            job
            for job, (worker, status) in zip(recent, owners, strict=True)
            if status == b"running" and worker.decode().split("-")[-2] == str(pid)
        ]
        return gather(self.fleet, mine, lambda queue, job: queue.view(job))

    def end_worker(self) -> None:
        self.fleet.workers[self.victim()].terminate()
        self.fleet.start_worker(ready=False)

    def stop_worker(self) -> None:
        worker = self.fleet.workers[self.victim()]
        worker.send_signal(signal.SIGSTOP)
        self.go_on(7)
        worker.send_signal(signal.SIGCONT)

    def kill_gateway(self) -> None:
        place = self.choose.randrange(GATEWAYS)
        gateways = self.fleet.others
        gateways[place].kill()
        gateways[place].wait()
        self.fleet.start_gateway(self.ports[place])
        gateways[place] = gateways.pop()

    def stop_redis(self) -> None:
        self.redis.process.send_signal(signal.SIGSTOP)
        time.sleep(2)
        self.redis.process.send_signal(signal.SIGCONT)

    def restart_redis(self) -> None:
        """Killed, and started again until it runs, as whoever watches over it would."""
        self.redis.process.kill()
        self.redis.process.wait()
        while True:
            try:
                self.redis.start()
                return
            except SetupError as error:
                self.ledger.faults["redis_did_not_start"] += 1
                print(error, self.redis.log.read_text(errors="replace")[-5000:], flush=True)

    def on_triton(self, action: Callable[[], object]) -> None:
        self.fleet.background.loop.call_soon_threadsafe(action)

    def kill_triton(self) -> None:
        self.fleet.background.call(self.fleet.triton.die())

    def hang_triton(self) -> None:
        self.on_triton(self.fleet.triton.hang)
        self.go_on(3)
        self.on_triton(self.fleet.triton.resume)

    def sicken_triton(self) -> None:
        self.fleet.triton.sicken(self.choose.choice((STICKY, UNLOADING)))
        self.go_on(3)
        self.fleet.triton.sicken(None)

    def rage(self, until_s: float) -> None:
        kinds = (self.kill_worker,) * 3 + (self.end_worker, self.stop_worker, self.kill_gateway, self.stop_redis)
        kinds += (self.restart_redis, self.kill_triton, self.hang_triton, self.sicken_triton)
        while time.monotonic() < until_s:
            fault = self.choose.choice(kinds)
            self.ledger.faults[fault.__name__] += 1
            fault()
            self.go_on(self.choose.uniform(*PAUSE_S))

    def go_on(self, seconds: float) -> None:
        """Let time pass, and see which jobs move again."""
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self.watch()
            time.sleep(0.1)

    # The ledger

    def watch(self) -> None:
        """How long a killed worker's jobs took until they moved again. A Redis that is away tells nothing."""
        for job, (killed_s, evaluation) in list(self.ledger.watched.items()):
            view = self.fleet.view(job)
            if view.status.terminal or view.evaluation > evaluation:
                self.ledger.recoveries_s.append(time.monotonic() - killed_s)
                del self.ledger.watched[job]

    def settle(self) -> dict[str, object]:
        """When all is calm again: what has become of every accepted job."""
        jobs = list(dict.fromkeys(self.ledger.accepted))
        unfinished = set(jobs)

        def finished() -> bool:
            views = gather(self.fleet, sorted(unfinished), lambda queue, job: queue.view(job))
            unfinished.difference_update(view.job.id for view in views if view.status.terminal)
            self.watch()
            return not unfinished

        until(finished, limit_s=300)
        views = gather(self.fleet, jobs, lambda queue, job: queue.view(job))
        ends = gather(self.fleet, jobs, terminal_events)
        return {
            "accepted": len(jobs),
            "succeeded": sum(view.status is Status.SUCCEEDED for view in views),
            "cancelled": sum(view.status is Status.CANCELLED for view in views),
            "cancelled_unasked": sum(
                view.status is Status.CANCELLED and view.job.id not in self.ledger.cancelled for view in views
            ),
            "failed": [str(view.failure) for view in views if view.status is Status.FAILED],
            "not_ended_once": sum(count != 1 for count in ends),
            "faults": dict(self.ledger.faults),
            "recoveries": len(self.ledger.recoveries_s),
            **{f"recovery_p{q}_s": round(quantile(self.ledger.recoveries_s or [0], q / 100), 2) for q in (50, 95, 100)},
        }

    def close(self) -> None:
        self.fleet.close()
        self.redis.stop()


def run(minutes: float, seed: int, folder: Path) -> dict[str, object]:
    chaos = Chaos(folder, seed)
    try:
        clients = [threading.Thread(target=chaos.press, args=(10**6 * i,), daemon=True) for i in range(CLIENTS)]
        for client in clients:
            client.start()
        chaos.rage(time.monotonic() + 60 * minutes)
        chaos.over.set()
        for client in clients:
            client.join(60)
        return chaos.settle()
    finally:
        chaos.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vqd-chaos-") as folder:
        found = {"minutes": told.minutes, "seed": told.seed, **run(told.minutes, told.seed, Path(folder))}
    settings = Settings.model_fields
    limit_s = 2 * (settings["lease_ms"].default + settings["scan_ms"].default) / 1000
    print(json.dumps(found, indent=2))
    print(f"bounds: nothing failed, nothing ended twice, 95 of 100 jobs of a killed worker move within {limit_s:.0f} s")
    good = not found["failed"] and not found["not_ended_once"] and not found["cancelled_unasked"]
    return 0 if good and float(str(found["recovery_p95_s"])) <= limit_s else 1


if __name__ == "__main__":
    sys.exit(main())
