"""What comes back: the pictures of one job, and what made them."""

import builtins
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from service.errors import SetupError
from service.folders import unwritable
from service.provenance.names import file_name, write_new


def place_of(job_id: str, index: int | None = None) -> str:
    """Where the service has a job, or a picture of it."""
    job = f"/jobs/{quote(str(job_id), safe='', errors='replace').replace('.', '%2E')}"
    return job if index is None else f"{job}/images/{index}"


@dataclass(frozen=True)
class Picture:
    """``bytes``: an encoded file. ``request``: what makes this one picture again. ``name``: what to call its file.
    ``place``: where the service has it, for as long as it keeps the job."""

    bytes: builtins.bytes = field(repr=False)
    seed: int
    image_index: int
    tokens_sha256: str
    request: Mapping[str, Any]
    name: str
    place: str

    def save(self, path: str | Path = ".") -> Path:
        """Write the file and say where: at ``path``, or by its own name where that is a folder. Raises SetupError.

        By its own name it never takes another file's place: it gets a number.
        """
        path = Path(path)
        try:
            if path.is_dir():
                return write_new(path, self.name, self.bytes)
            path.write_bytes(self.bytes)
        except OSError as error:
            raise SetupError(f"{unwritable(path, error)}; the service still has it: GET {self.place}") from None
        return path

    def pil(self) -> Image.Image:
        """The decoded picture."""
        return Image.open(io.BytesIO(self.bytes))


@dataclass(frozen=True)
class Pictures:
    """``answer`` is the job as the service describes it: parameters as used, timings, model, …"""

    images: tuple[Picture, ...]
    answer: Mapping[str, Any] = field(repr=False)

    @property
    def id(self) -> str:
        """Of the job."""
        return str(self.answer["id"])

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was not drawn as it was asked for, in sentences."""
        return tuple(self.answer.get("warnings", ()))

    def save(self, folder: str | Path) -> list[Path]:
        """Write all into ``folder``, which is made if need be, by their names. Raises SetupError."""
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = unwritable(Path(folder) / self.images[0].name, error)
            raise SetupError(f"{why}; the service still has it: GET {self.images[0].place}") from None
        return [image.save(folder) for image in self.images]


def picture_of(answer: Mapping[str, Any], image: Mapping[str, Any], data: bytes) -> Picture:
    """``image``: an entry of the job's images."""
    job_id, index, request = answer["id"], image["index"], image.get("request", {})
    # A service of the version before names no request.
    name = file_name(request) if request else f"{job_id}-{index}.{answer['parameters']['format']}"
    return Picture(
        bytes=data,
        seed=image["seed"],
        image_index=image.get("image_index", index),
        tokens_sha256=image["tokens_sha256"],
        request=request,
        name=name,
        place=place_of(job_id, index),
    )
