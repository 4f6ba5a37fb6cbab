"""Who serves what: the records that a worker registers itself and its model by."""

from typing import Literal, TypeAlias

from service.condition import Condition
from service.messages import Parameters, Record


class Range(Record):
    minimum: float
    maximum: float


class ModelInfo(Record):
    """A served model, as its worker registers it: what the gateway needs to validate requests and to describe it."""

    name: str
    sha256: str
    description: str
    licence: str
    attributions: tuple[str, ...]
    tokens: int
    codes: int
    image_width: int
    image_height: int
    text_positions: int
    timesteps: int
    prompt_template: str
    defaults: Parameters
    ranges: dict[str, Range]
    samplers: tuple[str, ...]
    condition: Condition = Condition.TEXT
    classes: int = 0
    """How many labels there are; 0 unless it is conditioned on them."""
    labels: tuple[str, ...] = ()
    """Their names, where the model folder has them."""
    guidance: bool = True
    """Whether it has a null, without which it cannot be guided."""
    code: str = ""
    """SHA-256 of the code that exported it."""
    fingerprint: str = ""
    """Of the export: model, code, backend and dtype. Every config.pbtxt of it has the same one."""
    dtype: str = "fp32"
    """What the network computes in: fp32, bf16 or fp16."""
    backend: str = ""
    """What it was exported for, one of ``vqd export --backend``."""
    same_in_any_batch: bool = True
    """Whether a seed's picture is the same alone and in any batch, as far as it was measured for such an export."""
    edits: bool = False
    """Whether its worker knows of pictures to begin with, as one of the version before does not."""


WorkerState: TypeAlias = Literal["ready", "unready", "draining"]


class WorkerInfo(Record):
    """A live worker's registration; expires unless renewed. ``ready``: its Triton answers a real inference. ``rows``:
    pictures in progress; ``passes_per_s``: of the network, with full calls; None: not measured."""

    id: str
    model: ModelInfo
    state: WorkerState
    detail: str | None = None
    rows: int = 0
    passes_per_s: float | None = None
