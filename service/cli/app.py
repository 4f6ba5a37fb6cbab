"""The ``vqd`` command: what commands there are, and where. A command's module is loaded when it is called.

So each command needs only what it uses: `vqd worker` runs where there is no torch, and `vqd --help` is quick.
"""

import errno
import logging
import os
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from io import TextIOWrapper
from typing import Annotated, Any, NamedTuple, NoReturn, TextIO

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from service.cli.endings import endings_unwind
from service.errors import SetupError, VqdError


class Place(NamedTuple):
    """``module``: in this folder. ``extra``: of pyproject.toml, what to install for it; None: nothing besides vqd."""

    module: str
    extra: str | None
    help: str


COMMANDS = {
    "up": Place(
        "up",
        "local",
        "Start Redis, Triton, a worker and the gateway on this machine, and keep them alive until Ctrl-C.",
    ),
    "generate": Place("generate", None, "Make pictures with a running service and save them."),
    "replay": Place("replay", None, "Make pictures again from their files, and say whether they are equal."),
    "doctor": Place("doctor", "local", "Check this installation and say in plain words what is missing."),
    "convert": Place("convert", "export", "Turn an official checkpoint into a model folder."),
    "export": Place("export", "export", "Turn a model folder into a Triton model repository."),
    "gateway": Place("gateway", None, "Run the HTTP gateway."),
    "worker": Place("worker", None, "Run a worker."),
    "keys create": Place("keys", None, "Make an API key, and show it this once."),
    "keys list": Place("keys", None, "Show every key: what it may do, when it was used, whether it works."),
    "keys rotate": Place("keys", None, "Give a key a new secret; the present one works on for a while."),
    "keys revoke": Place("keys", None, "End a key for ever; gateways hear of it within a second."),
    "train": Place("train", "train", "Train the bundled model from the emoji packages."),
    "evaluate": Place("evaluate", "train", "Measure quality: what s, r, z and the samplers do."),
    "bench bounds": Place("bench", "test", "Measure every promised figure and hold it against its bound."),
    "bench flips": Place("bench", "test", "Count the pictures that change when others share their batch."),
    "bench backends": Place("bench", "test", "Compare the backends and dtypes that this machine can run."),
    "bench gpu": Place("bench", "test", "Measure the step on this machine's GPU."),
    "bench orders": Place("bench", "test", "Draw in which order each sampler's tokens appear."),
    "bench gateway": Place("cost", "test", "Measure what the gateway costs: jobs accepted, kept, answered, followed."),
    "bench profile": Place("cost", "test", "Measure where the time of a request goes, from HTTP to pixels."),
    "bench peers": Place("peers", "peers", "Hold the service against diffusers at its best batch, dtype and threads."),
    "bench networks": Place("peers", "peers", "Time the network alone in PyTorch's, ONNX's and OpenVINO's runtimes."),
    "bench times": Place("bench", "test", "Measure what each model takes by batch size, for `bench load --times`."),
    "bench curves": Place("bench", "test", "Draw what requests take at each load."),
    "bench load": Place("press", None, "Press a service: latencies, pictures per second, errors."),
    "bench flood": Place("press", None, "Press a service with two API keys, one of which floods: what the other sees."),
    "bench inpainting": Place("press", None, "Draw ten inpaintings with a running service."),
    "bench pictures": Place("press", None, "Draw the README's pictures with a running service."),
}


class Lazy(TyperGroup):
    """Its commands are names and help texts; the callback of one loads the module that holds the command itself."""

    # Any: typer keeps the types to itself.
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, found, rest = super().resolve_command(ctx, args)
        if isinstance(found, TyperCommand) and found.callback:
            group = get_group(found.callback())
            # What is not among its commands is the module as a whole, such as `train`.
            found = group.commands.get(found.name or "", group)
        return name, found, rest


def loader(command: str, place: Place) -> Callable[[], typer.Typer]:
    def load() -> typer.Typer:
        try:
            loaded: typer.Typer = import_module(f"service.cli.{place.module}").app
        except ModuleNotFoundError as error:
            raise absence(command, place, error) from None
        return loaded

    return load


def absence(command: str, place: Place, error: ModuleNotFoundError) -> Exception:
    """What to say when something is not installed; ``error`` itself when it is our own mistake."""
    missing = error.name or ""
    if missing == "service.lab":
        return SetupError(f"`vqd {command}` is left out of the images of gateway and worker")
    if missing.startswith("service"):
        return error
    wanted = f"'vqd[{place.extra}]'" if place.extra else "vqd"
    return SetupError(f"the package {missing!r} is missing: pip install {wanted}")


def show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"vqd {version('vqd')}")
        raise typer.Exit


app = typer.Typer(cls=Lazy, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
GROUPS = {"keys": "Manage the API keys of a service.", "bench": "Measure speed, memory and reproducibility."}
groups = {name: typer.Typer(cls=Lazy, no_args_is_help=True, help=help) for name, help in GROUPS.items()}
for name, group in groups.items():
    app.add_typer(group, name=name)
for command, place in COMMANDS.items():
    *within, name = command.split()
    (groups[within[0]] if within else app).command(name, help=place.help)(loader(command, place))


@app.callback()
def vqd(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Serve VQ-Diffusion models, and make pictures with them."""


OUTPUT_LOST = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Of a write to a stream, whose error names no file."""


def open_closed_streams() -> None:
    """A command that was started without stdin, stdout or stderr finds an empty one there."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  it is for the life of the process


def be_lenient(stream: TextIO) -> None:
    """A letter that the locale lacks is no reason to end a command."""
    if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors="backslashreplace")


def fail(message: str) -> NoReturn:
    typer.echo(f"vqd: {message}", err=True)
    sys.exit(1)


def main() -> None:
    """Entry point: it ends the process."""
    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        be_lenient(stream)
    try:
        with endings_unwind():
            run()
    finally:
        if "obstore" in sys.modules:
            leave(sys.exception())


def leave(error: BaseException | None) -> NoReturn:
    """End with the status and the words of ``error``, but without Python's own end.

    The client of S3 storage has threads of its own. Of 300 processes that ended just after an answer of the storage, 62
    died of SIGABRT while Python ended.
    """
    match error:
        case None:
            status = 0
        case SystemExit():
            status = int(error.code or 0)
        case _:
            sys.excepthook(type(error), error, error.__traceback__)
            status = 1
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def run() -> None:
    """One command: our own errors are one line on stderr and status 1, an interrupt is status 130.

    So are those of files and folders: mostly somebody has named a wrong one. An output that is lost is none, either.
    """
    try:
        app()
    except VqdError as error:
        fail(str(error))
    except OSError as error:
        if error.filename is not None:
            fail(f"{error.filename}: {error.strerror}")
        if error.errno not in OUTPUT_LOST:
            raise
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  the end of Python would try to write the rest once more
        fail(f"the output cannot be written: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit(130)
