"""The pictures of a job so far as files, for those who watch a folder: what ``vqd generate --preview`` writes."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from service.client.events import Event
from service.client.job import JobFacts
from service.folders import unwritable
from service.provenance.names import file_name


class PreviewFiles:
    """Each beside the file that its picture will have, as ``red-apple-7-0.preview.png``; gone when the block is left.

    ``on_new`` is told of each once; None: nothing is written.
    """

    def __init__(self, folder: Path, on_new: Callable[[Path], object] | None) -> None:
        self.folder, self.on_new = folder, on_new
        self.paths: dict[int, Path] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for path in self.paths.values():
            path.unlink(missing_ok=True)

    def write(self, fields: Mapping[str, Any], job: JobFacts, event: Event) -> None:
        """Those of an event of the job that ``fields`` made. Raises SetupError."""
        for preview in event.previews if self.on_new else ():
            path = self.path_of({**fields, **job.answer["parameters"]}, preview.index)
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                is_new = preview.index not in self.paths
                self.paths[preview.index] = path  # before there is one, or an interrupt could leave it behind
                replace(path, preview.png)
            except OSError as error:
                raise unwritable(path, error) from None
            if self.on_new and is_new:
                self.on_new(path)

    def path_of(self, made: Mapping[str, Any], index: int) -> Path:
        name = file_name({**made, "image_index": made["image_index"] + index})
        return self.folder / f"{Path(name).stem}.preview.png"


def replace(path: Path, data: bytes) -> None:
    """The file is whole whenever somebody looks. Raises OSError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")  # another process may make the same picture
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
