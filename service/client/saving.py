"""Pictures made and saved, with what a person in a terminal sees meanwhile: what ``vqd generate`` does."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tqdm import tqdm

from service.client.blocking.client import Client
from service.client.events import Event
from service.client.pictures import Pictures
from service.client.so_far import PreviewFiles
from service.folders import require_writable

WAITING = "{desc}: waiting for the first evaluation of the network"
DRAWING = "{desc}: {percentage:3.0f} %|{bar}| {n_fmt} of {total_fmt} evaluations, {remaining} left"


@dataclass(frozen=True)
class Saved:
    path: Path
    seed: int
    tokens_sha256: str


@dataclass(frozen=True)
class Outcome:
    """``answer`` is the job as the service describes it; ``warnings``: what was not drawn as it was asked for."""

    images: tuple[Saved, ...]
    answer: Mapping[str, Any]
    warnings: tuple[str, ...]

    @classmethod
    def saved(cls, pictures: Pictures, folder: Path) -> Self:
        """Write them. Raises SetupError."""
        pairs = zip(pictures.images, pictures.save(folder), strict=True)
        images = tuple(Saved(path, image.seed, image.tokens_sha256) for image, path in pairs)
        return cls(images, pictures.answer, pictures.warnings)


def generate(
    url: str,
    fields: Mapping[str, Any],
    folder: Path,
    on_progress: Callable[[Event], object] = lambda _: None,
    api_key: str = "",
    on_preview: Callable[[Path], object] | None = None,
) -> Outcome:
    """Make pictures with the service at ``url`` and save them under ``folder``; an interrupt cancels the job.

    ``on_preview``: save the pictures so far, too, for as long as it runs, and tell once where each is.
    """
    require_writable(folder)  # before the work, not after it
    asked = {**fields, "preview": True} if on_preview else fields
    with (
        Client(url, api_key) as client,
        client.submit(**asked) as job,
        PreviewFiles(folder, on_preview) as so_far,
        job.events(previews=on_preview is not None) as events,
    ):
        for event in events:
            so_far.write(fields, job, event)
            on_progress(event)
        return Outcome.saved(job.pictures(), folder)


def generate_with_bar(
    url: str, fields: Mapping[str, Any], folder: Path, api_key: str = "", preview: bool = False
) -> Outcome:
    """``generate`` with a progress bar where stderr is a terminal. ``preview``: and files of the pictures so far, which
    stderr names."""
    wanted = fields.get("prompt", fields.get("label", "no condition"))
    prompt = " ".join(str(wanted).split())[:40]  # a line break would break the bar
    count = fields.get("n", 1)
    what = prompt if count == 1 else f"{count} pictures of {prompt}"
    with tqdm(desc=what, bar_format=WAITING, leave=False, disable=None) as bar:

        def on_progress(event: Event) -> None:
            if bar.total is None:
                bar.bar_format = DRAWING
                bar.reset(event.evaluations)  # what the queue took says nothing of what is left
            bar.update(event.evaluation - bar.n)

        def on_preview(path: Path) -> None:
            bar.write(f"preview, until it is done: {path}", file=sys.stderr)

        return generate(url, fields, folder, on_progress, api_key, on_preview if preview else None)
