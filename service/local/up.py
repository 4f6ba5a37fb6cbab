"""``vqd up``: export if need be, start everything, make the picture that was asked for, keep serving."""

import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any

from service.client.fields import label_from
from service.client.saving import generate_with_bar
from service.condition import Condition
from service.errors import SetupError
from service.export.fingerprint import is_export_of
from service.export.precision import Precision
from service.export.written import EXPORTING
from service.folders import held
from service.local.interrupts import Interrupts
from service.local.live import LiveLine
from service.local.processes import OURSELVES, end, spawn
from service.local.supervisor import Supervisor
from service.serving import ModelInfo
from service.settings import Settings
from service.triton.repository import read_repository

FOLLOW_S = 0.1
NOTE = "vqd: note: "


def up(
    settings: Settings,
    models: Sequence[Path],
    out: Path,
    once: str | None,
    first: str | None,
    *,
    dtype: Precision = Precision.AUTO,
) -> None:
    """Serve ``models``. Returns after ``once``, or when interrupted. Raises SetupError when something does not start.

    ``once``, ``first``: what the first model is to draw. ``dtype``: what their networks compute in.
    """
    folder, repositories = out / "run", repositories_for(settings.repository, models)
    with held(folder, "choose another --out"):
        for model, repository in zip(models, repositories, strict=True):
            ensure_exported(model, repository, folder / "export.log", dtype)
        infos = [read_repository(repository)[0] for repository in repositories]
        if twice := [name for name, times in Counter(info.name for info in infos).items() if times > 1]:
            raise SetupError(f"two models are called {twice[0]}: give one of them another name in its vqd.json")
        with Supervisor(settings, folder, repositories) as supervisor:
            ready_s, url = wait_ready(supervisor), supervisor.url
            print(f"ready in {ready_s:.1f} s at {url} (API: {url}/docs)", flush=True)
            if wanted := once or first:
                make_picture(url, wanted, infos[0], out, settings.api_key)
            if once is None:
                print(f"API keys: VQD_REDIS_URL={supervisor.redis_url} vqd keys create NAME", flush=True)
                print(f"serving until Ctrl-C; logs are in {folder}", flush=True)
                supervisor.watch()


def repositories_for(repository: Path, models: Sequence[Path]) -> list[Path]:
    """Where each model is exported to: ``repository`` itself, or with several a folder in it for each."""
    if len(models) == 1:
        return [repository]
    names = [model.resolve().name for model in models]
    if len({*names}) < len(names):
        raise SetupError(f"--model: folders of several models need names of their own, not {', '.join(names)}")
    return [repository / name for name in names]


def wait_ready(supervisor: Supervisor) -> float:
    """Seconds until ready; says meanwhile which parts are not."""
    with LiveLine() as line:

        def on_wait(parts: Sequence[str], progress: str) -> None:
            line.show(f"starting: waiting for {', '.join(parts)}{progress and f'; {progress}'}")
            line.tick()

        return supervisor.wait_ready(on_wait)


def make_picture(url: str, wanted: str, info: ModelInfo, out: Path, api_key: str) -> None:
    """One picture through POST /generate, of a prompt or a class; prints where it is."""
    began = time.monotonic()
    fields: dict[str, Any] = {"model": info.name, "seed": 7}
    if info.condition is Condition.TEXT:
        fields["prompt"] = wanted
    elif info.condition is Condition.LABEL:
        fields["label"] = label_from(wanted)
    outcome = generate_with_bar(url, fields, out, api_key)
    print(f"{wanted!r} in {time.monotonic() - began:.2f} s: {outcome.images[0].path}", flush=True)


def ensure_exported(model: Path, repository: Path, log: Path, dtype: Precision = Precision.AUTO) -> None:
    """Export unless the repository holds this very model in ``dtype`` already, made by this code."""
    began = time.monotonic()
    if not is_export_of(repository, model, dtype):
        export_apart(model, repository, log, dtype)
        print(f"exported {model} to {repository} in {time.monotonic() - began:.1f} s", flush=True)


def export_apart(model: Path, repository: Path, log: Path, dtype: Precision = Precision.AUTO) -> None:
    """``vqd export`` as a process: a supervisor without torch starts 2 s sooner and keeps 160 MB less."""
    log.unlink(missing_ok=True)
    command = ["export", f"--model={model}", f"--repository={repository}", f"--dtype={dtype}"]
    with LiveLine() as line:
        line.show(f"{EXPORTING}{model}, once per model and version")
        interrupts, process = Interrupts(), None
        try:
            with interrupts.on(signal.SIGINT):
                with interrupts.whole():
                    process = spawn([*OURSELVES, *command], log)
                follow(process, log, line, interrupts)
        finally:
            if process:
                end(process)
    if process.returncode:
        last = log.read_text(errors="replace").rstrip().rpartition("\n")[2]
        if last.startswith("vqd: "):
            raise SetupError(last.removeprefix("vqd: "))
        raise SetupError(f"the export ended with status {process.returncode}{process.excerpt()}")


def follow(process: Popen[bytes], log: Path, line: LiveLine, interrupts: Interrupts) -> None:
    """Show the stages that an export writes to its log, until it has ended."""
    running = True
    with log.open(errors="replace") as output:
        while running:
            with suppress(TimeoutExpired):
                process.wait(FOLLOW_S)
            interrupts.heed()
            running = process.poll() is None  # before the log is read, or its last lines could be missed
            for text in output:
                if text.startswith(EXPORTING):
                    line.show(text.rstrip())
                elif text.startswith(NOTE):
                    line.draw("")
                    print(text.rstrip(), file=sys.stderr, flush=True)
            line.tick()
