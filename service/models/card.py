"""What a model folder says without its weights: ``vqd.json``, where the text encoder is, the model's identity."""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from service.diffusion.guidance_schedule import known_schedule
from service.diffusion.samplers import field_ranges, known_sampler
from service.errors import SetupError
from service.messages import ImageFormat, PurityForm, Record, complaints
from service.models.weight_files import is_pointer, spare_weights
from service.serving import Range

REFERENCE = Path(__file__).parents[1] / "reference"
"""The bundled model's folder."""
MODEL_FILES = (".json", ".safetensors", ".bin", ".txt")
CHECKPOINTS = (".pth", ".pt", ".ckpt")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
PIECE = 2**20
LABELS_FILE = "labels.json"
"""Names of the classes: a JSON list, one for each."""


class TextSource(Record):
    """Where the text encoder and tokenizer are when the folder does not hold them: an installed Python package."""

    package: str
    path: str


class SamplingDefaults(Record):
    guidance_scale: float = 3.0
    purity_r: float = 1.0
    purity_form: PurityForm = PurityForm.LINEAR
    tokens_per_step: int | None = None
    """None: as many as 100 steps need."""
    steps: int = 1
    sampler: Annotated[str, AfterValidator(known_sampler)] = "purity"
    truncation_rate: float = 1.0
    temperature: float = 1.0
    final_resample: bool = True
    guidance_schedule: Annotated[str, AfterValidator(known_schedule)] | tuple[float, ...] = "constant"
    masking_schedule: str = "cosine"
    n: int = 1
    format: ImageFormat = ImageFormat.PNG


class Card(Record):
    """``vqd.json``: what diffusers has no field for."""

    name: str
    description: str = ""
    licence: str = "unknown"
    attributions: tuple[str, ...] = ()
    prompt_template: str = Field(default="{prompt}", pattern=r"\{prompt\}")
    text: TextSource | None = None
    text_positions: int | None = None
    """Length of a tokenised prompt; None: the tokenizer's own."""
    normalize_states: bool = True
    """Divide each text state by its norm, as VQ-Diffusion does with CLIP."""
    defaults: SamplingDefaults = SamplingDefaults()
    ranges: dict[str, Range] = Field(default_factory=dict)


def ranges_for(card: Card, tokens: int, timesteps: int) -> dict[str, Range]:
    """The range of every sampling parameter: the card's where it gives one."""
    return {name: card.ranges.get(name, usual) for name, usual in field_ranges(tokens, timesteps).items()}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises SetupError naming the file."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise SetupError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise SetupError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise SetupError(f"{path} does not hold a JSON object")
    return value


def load_card(folder: Path) -> Card:
    """``vqd.json``; a folder without one gets the folder's name and the defaults."""
    if not (folder / "vqd.json").exists():
        return Card(name=folder.resolve().name)
    try:
        return Card.model_validate(read_json(folder / "vqd.json"), extra="forbid")
    except ValidationError as error:
        raise SetupError(f"{folder}/vqd.json: {complaints(error)}") from None


def read_labels(path: Path | None, classes: int) -> list[str]:
    """The names of the classes, empty when none are given. Raises SetupError for another number of them."""
    if path is None:
        return []
    try:
        labels = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SetupError(f"{path} cannot be read as the names of classes: {error}") from None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise SetupError(f"{path} is no JSON list of the classes' names")
    if len(labels) != classes:
        raise SetupError(f"{path} names {len(labels)} classes, the model has {classes}")
    return labels


def text_folders(folder: Path, card: Card) -> tuple[Path, Path]:
    """(text encoder, tokenizer): in the model folder, or in the package that the card names."""
    if card.text is None:
        return folder / "text_encoder", folder / "tokenizer"
    try:
        spec = find_spec(card.text.package)
    except (ModuleNotFoundError, ValueError):  # a dotted name whose parent is not there, an empty one
        spec = None
    if spec is None or spec.origin is None:
        raise SetupError(
            f"{folder}/vqd.json: text.package {card.text.package!r} is not installed: pip install 'vqd[export]'"
        )
    source = Path(spec.origin).parent / card.text.path
    return source, source


def digest(files: Iterable[tuple[Path, Path]]) -> str:
    """SHA-256 over names and contents of files, each given as (folder, path); a name is the place in the folder."""
    total = hashlib.sha256()
    for folder, path in files:
        total.update(os.fsencode(f"{path.relative_to(folder)}\0{path.stat().st_size}\0"))
        with path.open("rb") as file:
            while piece := file.read(PIECE):  # weights may be larger than what memory is free
                total.update(piece)
    return total.hexdigest()


def model_files(folder: Path) -> list[Path]:
    """What decides the model's pictures: neither hidden files, nor other forms of the weights that are read."""
    paths = [path for path in folder.rglob("*") if path.suffix in MODEL_FILES and path.is_file()]
    shown = [path for path in paths if not any(name.startswith(".") for name in path.relative_to(folder).parts)]
    spare = {path for place in {path.parent for path in shown} for path in spare_weights(place)}
    return sorted(path for path in shown if path not in spare)


def folder_fingerprint(folder: Path) -> str:
    """The model's identity: everything that decides its pictures. Raises SetupError for what is no model folder."""
    refuse_other(folder)
    folders = [folder, *dict.fromkeys(text_folders(folder, load_card(folder)))]
    files = [(place, path) for place in folders for path in model_files(place)]
    for _, path in files:
        refuse_pointer(path)
    return digest(files)


def refuse_other(folder: Path) -> None:
    """Raises SetupError for what somebody may take for a model folder, with what to do."""
    if folder.is_file():
        if folder.suffix in CHECKPOINTS:
            raise SetupError(convert_first(folder, folder, "is a checkpoint, not a model folder"))
        raise SetupError(f"{folder} is a file: --model takes the folder that diffusers' VQDiffusionPipeline saves")
    if not folder.is_dir():
        raise SetupError(f"{folder}: there is no such model folder{download_hint(str(folder))}")
    if (folder / "transformer").exists():
        return
    if checkpoints := sorted(path for path in folder.rglob("*") if path.suffix in CHECKPOINTS):
        raise SetupError(convert_first(folder, checkpoints[0], f"holds {checkpoints[0].name}, a checkpoint"))
    if snapshots := sorted(folder.glob("snapshots/*/transformer")):
        raise SetupError(f"{folder} is a cache of downloads; the model folder in it is {snapshots[0].parent}")


def convert_first(given: Path, checkpoint: Path, is_what: str) -> str:
    return f"{given} {is_what}: convert it first: vqd convert {checkpoint} --to FOLDER"


def download_hint(given: str) -> str:
    if not HUB_ID.fullmatch(given):
        return ""
    name = given.partition("/")[2]
    return (
        f"; nothing is downloaded by itself. If it is a model on the Hugging Face hub: "
        f"hf download {given} --local-dir {name}, and then --model {name}"
    )


def refuse_pointer(path: Path) -> None:
    """Raises SetupError for what stands in place of a large file."""
    if is_pointer(path):
        raise SetupError(f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository")
