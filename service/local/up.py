"""``vqd up``: export if need be, start everything, make the picture that was asked for, keep serving."""

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import Popen, TimeoutExpired

from service.client import generate_with_bar
from service.errors import SetupError
from service.export.fingerprint import is_export_of
from service.local.live import EXPORTING, LiveLine
from service.local.processes import end, spawn, tail
from service.local.supervisor import Supervisor
from service.settings import Settings

FOLLOW_S = 0.1


def up(settings: Settings, model: Path, out: Path, once: str | None, first: str | None) -> None:
    """Returns after ``once``, or when interrupted. Raises SetupError when something does not start."""
    began = time.monotonic()
    if not is_export_of(settings.repository, model):
        export_apart(model, settings.repository, out / "run" / "export.log")
        print(f"exported {model} to {settings.repository} in {time.monotonic() - began:.1f} s", flush=True)
    with Supervisor(settings, out / "run") as supervisor:
        print(f"ready in {wait_ready(supervisor):.1f} s at {supervisor.url} (API: {supervisor.url}/docs)", flush=True)
        if prompt := once or first:
            make_picture(supervisor.url, prompt, out)
        if once is None:
            print(f"serving until Ctrl-C; logs are in {out / 'run'}", flush=True)
            supervisor.watch()


def wait_ready(supervisor: Supervisor) -> float:
    """Seconds until ready; says meanwhile which parts are not."""
    with LiveLine() as line:

        def on_wait(parts: Sequence[str]) -> None:
            line.show(f"starting: waiting for {', '.join(parts)}")
            line.tick()

        return supervisor.wait_ready(on_wait)


def make_picture(url: str, prompt: str, out: Path) -> None:
    """One picture through POST /generate; prints where it is."""
    began = time.monotonic()
    outcome = generate_with_bar(url, {"prompt": prompt, "seed": 7}, out)
    print(f"{prompt!r} in {time.monotonic() - began:.2f} s: {outcome.images[0].path}", flush=True)


def export_apart(model: Path, repository: Path, log: Path) -> None:
    """``vqd export`` as a process: a supervisor without torch starts 2 s sooner and keeps 160 MB less."""
    log.unlink(missing_ok=True)
    command = ["export", f"--model={model}", f"--repository={repository}"]
    with LiveLine() as line:
        line.show(f"{EXPORTING}{model}, once per model and version")
        process = spawn([sys.executable, "-m", "service.cli", *command], log)
        try:
            follow(process, log, line)
        finally:
            end(process)
    if process.returncode:
        raise SetupError(tail(log).rpartition("vqd: ")[2])


def follow(process: Popen[bytes], log: Path, line: LiveLine) -> None:
    """Show the stages that an export writes to its log, until it has ended."""
    running = True
    with log.open(errors="replace") as output:
        while running:
            with suppress(TimeoutExpired):
                process.wait(FOLLOW_S)
            running = process.poll() is None  # before the log is read, or its last lines could be missed
            for text in output:
                if text.startswith(EXPORTING):
                    line.show(text.rstrip())
            line.tick()
